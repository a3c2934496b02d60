"""The figures of "CTBench: a library and benchmark for certified training" (Mao et al. 2024).

Out-of-distribution images are our own corruptions below the scale of the paper, which has MNIST-C and CIFAR-10-C.
Table 9 of the paper compares two verifiers of others; here they are branch and bound and integer programs.
"""

from __future__ import annotations

from ctbench.analyses import Fragmentation, Tightness, Utilisation
from ctbench.experiments.claims import All, Below, Correlates, Less
from ctbench.experiments.network_figures import ADVERSARIAL, CERTIFIED, NetworkFigure, called, methods
from ctbench.experiments.quantities import Accuracies, Analysed, Corruptions, Each, Published, SharedMistakes
from ctbench.experiments.scales import SETTINGS
from ctbench.report.drawings import Bars, Drawing, HeatMap, Scatter

TITLE = "CTBench"
MNIST, CIFAR = ("mnist_01", "mnist_03"), ("cifar10_2", "cifar10_8")
RECENT = ("sabr", "taps", "staps", "mtl_ibp")
ADAPTIVE = ("taps", "mtl_ibp")  # use more neurons at large radii than at small ones
IBP, HERE = called("ibp"), {"by": "here"}


def _fragmentation(number: str, settings: tuple[str, ...]) -> NetworkFigure:
    return NetworkFigure(
        number=number,
        networks=methods(*settings),
        table=Each(Analysed(Fragmentation(), ("sampled", "crown", "interval"), settings=settings)),
        drawing=Bars(group="method", values=("sampled",), colour="eps", hatch="setting", panel=None),
        claim="certified training leaves fewer unstable neurons than adversarial, and both fewer than standard",
        test=All(
            Less("sampled", called(*CERTIFIED), called(*ADVERSARIAL), by=("setting", "eps")),
            Less("sampled", called(*ADVERSARIAL), called("standard"), by=("setting", "eps")),
        ),
    )


def _utilisation(number: str, settings: tuple[str, ...]) -> NetworkFigure:
    return NetworkFigure(
        number=number,
        networks=methods(*settings),
        table=Each(Analysed(Utilisation())),
        drawing=Bars(group="method", values=("utilisation",), hatch="setting", panel=None),
        claim="TAPS and MTL-IBP activate fewer neurons than IBP at a small radius, and more at a large one",
        test=All(
            *(Less("utilisation", called(method), IBP, where={"radius": "small"}) for method in ADAPTIVE),
            *(Less("utilisation", IBP, called(method), where={"radius": "large"}) for method in ADAPTIVE),
        ),
    )


def _mistakes(number: str, settings: tuple[str, ...]) -> NetworkFigure:
    return NetworkFigure(
        number=number,
        networks=methods(*settings, of=CERTIFIED),
        table=SharedMistakes(),
        drawing=Bars(group="succeeded", values=("observed", "expected")),
        claim="networks make shared mistakes: more images than expected are certified by all of them, or by none",
        test=All(*(Below("expected", "observed", where={"succeeded": count}) for count in (0, len(CERTIFIED)))),
    )


def _corruptions(number: str, settings: tuple[str, ...]) -> NetworkFigure:
    return NetworkFigure(
        number=number,
        networks=methods(*settings),
        table=Each(Corruptions()),
        drawing=HeatMap(down=("method",), across="corruption", value="ratio"),
        claim="certified training generalises better to corruptions than standard training",
        test=Less("ratio", called("standard"), called(*CERTIFIED), where={"corruption": "mean"}),
    )


def _accuracies(
    number: str, claim: str, test: All | Less, *settings: str, drawing: Drawing | None = None
) -> NetworkFigure:
    """Accuracies of all methods, and the published ones for these settings."""
    return NetworkFigure(
        number=number,
        networks=methods(*settings),
        table=Published(Each(Accuracies())),
        drawing=drawing,
        claim=claim,
        test=test,
    )


FIGURES = (
    _accuracies(
        "table-1",
        "recent methods have a higher natural accuracy than IBP, and at small radii a higher certified accuracy",
        All(
            Less("natural", IBP, called(*RECENT), where=HERE),
            Less("certified", IBP, called(*RECENT), where={**HERE, "radius": "small"}),
        ),
        *SETTINGS,
    ),
    _mistakes("table-2", MNIST),
    NetworkFigure(
        number="table-8",
        networks=methods(*SETTINGS),
        table=Each(Accuracies()),
        drawing=Bars(group="method", values=("training s", "certification s")),
        claim="of the certified methods, IBP trains in the shortest time",
        test=All(*(Less("training s", IBP, called(method)) for method in CERTIFIED[1:])),
    ),
    NetworkFigure(
        number="table-9",
        networks=methods(*CIFAR, of=("sabr",)),
        table=SharedMistakes(stages=("complete", "interval,crown-ibp,crown,milp")),
        claim="two verifiers fail on the same images: one alone succeeds more rarely than if they were independent",
        test=Below("observed", "expected", where={"succeeded": 1}),
    ),
    _mistakes("table-10", CIFAR),
    _accuracies(
        "figure-1",
        "with one well-tuned setting, certified errors at MNIST, eps 0.3 are lower than in the literature",
        All(
            *(
                Less("certified error", {"by": "here", **method}, {"by": works, **method})
                for method, works in (
                    (IBP, "Shi et al. 2021"),
                    (called("taps"), "Mao et al. 2023"),
                    (called("mtl_ibp"), "De Palma et al. 2024"),
                )
            )
        ),
        "mnist_03",
        drawing=Bars(group="method", values=("certified error",), colour="by"),
    ),
    _fragmentation("figure-3", MNIST),
    _utilisation("figure-4", MNIST),
    NetworkFigure(
        number="figure-5",
        networks=methods(*MNIST, *CIFAR, of=CERTIFIED),
        table=Each(Accuracies(), Analysed(Tightness())),
        drawing=Scatter(x="tightness", y="certified"),
        claim="at small radii, certified accuracy falls as propagation tightness rises",
        test=Correlates("tightness", "certified", sign=-1, where={"radius": "small"}),
    ),
    _corruptions("figure-6", MNIST),
    _fragmentation("figure-7", CIFAR),
    _utilisation("figure-8", CIFAR),
    _corruptions("figure-9", CIFAR),
)
