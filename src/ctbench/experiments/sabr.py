"""The figures of "Certified training: small boxes are all you need" (Müller et al. 2023), which proposes SABR.

Networks of SABR have the ratio of their recipe; only at the scale of the paper, Figures 7 and 9 and Table 6 have 0.05.
`box-growth` shows what section 4 says of trained networks in words.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctbench.analyses import Centres, GradientAlignment, LossGrowth, States
from ctbench.experiments.box_theorem import MeanRadii, RandomCentres
from ctbench.experiments.claims import All, Below, Less, Over, PeaksInside, Rises, SuperLinear
from ctbench.experiments.network_figures import Choice, NetworkFigure, called, methods, no_networks, varied
from ctbench.experiments.networks import NetworkOf
from ctbench.experiments.quantities import Accuracies, Analysed, Each, LayerGrowth, Published
from ctbench.experiments.scales import SETTINGS, NetworkScale
from ctbench.report.drawings import Curves, Scatter

TITLE = "Certified training: small boxes are all you need"
SETTING = "cifar10_2"  # of all figures that show one network of each method
RATIOS = (0.0125, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
LARGEST = {"setting": "CIFAR-10, eps 8/255"}
IBP, SABR, PGD, HERE = called("ibp"), called("sabr"), called("pgd"), {"by": "here"}


def _boxes(*others: str) -> Choice:
    """SABR with small boxes, and other methods, in one setting."""

    def choice(scale: NetworkScale) -> list[NetworkOf]:
        sabr = NetworkOf(SETTING, "sabr_original", changes=scale.small_box)
        return [*(NetworkOf(SETTING, method) for method in others), sabr]

    return choice


def _published(number: str, claim: str, test: All, settings: Sequence[str], papers: Sequence[str]) -> NetworkFigure:
    return NetworkFigure(
        number=number,
        networks=methods(*settings, of=("ibp", "crown_ibp", "sabr_original")),
        table=Published(Each(Accuracies()), tuple(papers)),
        drawing=Scatter(x="natural", y="certified"),
        claim=claim,
        test=test,
    )


BETTER = All(*(Less(kind, IBP, SABR, where=HERE) for kind in ("natural", "certified")))

FIGURES = (
    _published(
        "table-1",
        "SABR has a higher natural accuracy than l-infinity-distance nets, except on CIFAR-10 at 8/255",
        All(Less("natural", {"method": "l-infinity-distance net"}, {**SABR, **HERE}, but=LARGEST)),
        SETTINGS[:4],
        ["Müller et al. 2023"],
    ),
    _published("table-2", "SABR is better than IBP in natural and certified accuracy", BETTER, SETTINGS, []),
    NetworkFigure(
        number="table-4",
        networks=methods(*SETTINGS, of=("ibp", "sabr_original")),
        table=Each(Accuracies()),
        claim="the attack makes SABR slower to train than IBP",
        test=Less("training s", IBP, SABR),
    ),
    NetworkFigure(
        number="table-5",
        networks=methods(SETTING, of=("ibp", "sabr_original", "pgd")),
        table=Each(Analysed(States())),
        claim="SABR's network has more active ReLUs than IBP's, and far fewer unstable ones than PGD's",
        test=All(
            Less("point: active, layers", IBP, SABR),
            Less("region: unstable, layers", IBP, SABR),
            Less("region: unstable, layers", SABR, PGD),
        ),
    ),
    NetworkFigure(
        number="table-6",
        networks=_boxes("ibp"),
        table=Each(Analysed(GradientAlignment())),
        claim="SABR's gradient is better aligned with those of the clean and the adversarial loss than IBP's",
        test=All(*(Less(kind, IBP, SABR) for kind in ("standard", "adversarial"))),
    ),
    NetworkFigure(
        number="figure-3",
        networks=methods(SETTING, of=("ibp", "sabr_original", "pgd")),
        table=Each(Analysed(Centres(), ("density", "share below 0"))),
        drawing=Curves(
            x="centre of the box before the last activation", values=("density",), series=("method",), marker=""
        ),
        claim="IBP moves more of the inputs of the last ReLUs below 0 than SABR, and SABR more than PGD",
        test=All(Less("share below 0", PGD, SABR), Less("share below 0", SABR, IBP)),
    ),
    NetworkFigure(
        number="figure-4",
        networks=no_networks,
        table=MeanRadii(),
        drawing=Curves(x="radius", values=("mean radius", "tangent"), panel=None, marker=""),
        claim="after a ReLU whose inputs are mostly negative, the mean radius of boxes grows super-linearly",
        test=All(Below("tangent", "mean radius", by=()), SuperLinear("mean radius", "radius", by=())),
    ),
    NetworkFigure(
        number="theorem-4.1",
        networks=no_networks,
        table=RandomCentres(),
        claim="the mean radius grows super-linearly where p(-z) > p(z) for all z > 0",
        test=Over("least curvature", 0.0, by=("centres",)),
    ),
    NetworkFigure(
        number="box-growth",
        networks=methods(SETTING, of=("ibp", "sabr_original", "pgd")),
        table=Each(LayerGrowth()),
        drawing=Curves(x="lambda", values=("growth",), series=("layer",), panel="method", log=True),
        claim="in trained networks, boxes grow faster in ReLU layers the larger they are (section 4, in words)",
        test=Rises("growth", "lambda", where={"op": "relu"}, by=("method",)),
    ),
    _published("figure-5", "SABR is above and to the right of other methods", BETTER, SETTINGS, ["Müller et al. 2023"]),
    NetworkFigure(
        number="figure-6",
        networks=varied(SETTING, method="sabr_original", field="method.ratio", name="lambda", values=RATIOS),
        table=Each(Accuracies(few=True)),
        drawing=Curves(x="lambda", values=("natural", "adversarial", "certified", "deeppoly", "box")),
        claim="as lambda falls, natural accuracy rises and the share that boxes certify falls; "
        "with a complete verifier the best lambda lies inside",
        test=All(Rises("natural", "lambda", falls=True), Rises("box", "lambda"), PeaksInside("certified", "lambda")),
    ),
    NetworkFigure(
        number="figure-7",
        networks=_boxes("ibp"),
        table=Each(Analysed(LossGrowth())),
        drawing=Curves(x="lambda", values=("interval", "crown", "clean"), series=("method",), log=True),
        claim="losses grow super-linearly, and over the whole region SABR's is larger than IBP's",
        test=All(
            SuperLinear("interval", "lambda", by=("method",)),
            Less("interval", IBP, SABR, where={"lambda": 1.0}),
        ),
    ),
    NetworkFigure(
        number="figure-8",
        networks=methods(SETTING, of=("pgd", "ibp")),
        table=Each(Analysed(LossGrowth(), ("interval", "clean"))),
        drawing=Curves(x="lambda", values=("interval", "clean"), series=("method",), log=True),
        claim="the loss over the whole region is far larger for PGD's network than for IBP's",
        test=Less("interval", IBP, PGD, where={"lambda": 1.0}),
    ),
    NetworkFigure(
        number="figure-9",
        networks=_boxes("ibp"),
        table=Each(
            Analysed(LossGrowth(), ("interval",)),
            Analysed(LossGrowth(adversarial=True), ("interval",), called="adversarial"),
        ),
        drawing=Curves(x="lambda", values=("interval", "adversarial"), series=("method",), log=True),
        claim="small boxes have a larger loss around adversarial points than around inputs",
        test=Below("interval", "adversarial", where={"lambda": LossGrowth().shares[0]}, by=("method",)),
    ),
)
