"""What the figures of images of De Bartolomeis et al. have in common: adversarial and certified training, in balls of
several radii and on segments.

Segments lie along k random directions. They are nested in k, and differ between the seeds of a training. COAP does not
scale to TinyImageNet.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctbench.experiments.claims import All, Rises, Widens
from ctbench.experiments.network_figures import Choice, NetworkFigure
from ctbench.experiments.networks import NetworkOf
from ctbench.experiments.quantities import Each, RobustErrors, UnstableNeurons
from ctbench.experiments.scales import NetworkScale
from ctbench.report.drawings import Curves, Drawing

IN_BALLS = {"AT": "pgd", "COAP": "coap", "CROWN-IBP": "crown_ibp", "IBP": "ibp", "FAST-IBP": "fast_ibp"}
ON_SEGMENTS = {"AT": "line_search", "COAP": "coap"}
CERTIFIED = tuple(IN_BALLS)[1:]
COUNTS = (1, 2, 5, 10)
AT, COAP = {"method": "AT"}, {"method": "COAP"}
ERRORS = ("standard error", "robust error")


def at_budgets(*axes: Sequence[str], of: Sequence[str] = tuple(IN_BALLS)) -> Choice:
    """Each of some methods in each setting; of each axis of settings, a scale may select some."""

    def choice(scale: NetworkScale) -> list[NetworkOf]:
        settings = scale.distinct(*(setting for axis in axes for setting in scale.some(axis)))
        return [
            NetworkOf(
                setting,
                IN_BALLS[title],
                changes=scale.adversarial if title == "AT" else (),
                about={"method": title},
            )
            for setting in settings
            for title in of
            if not (title == "COAP" and setting.startswith("tinyimagenet"))
        ]

    return choice


def on_segments(dataset: str, *of: str) -> Choice:
    """Each of some methods on segments along k directions, with several seeds."""

    def choice(scale: NetworkScale) -> list[NetworkOf]:
        return [
            NetworkOf(
                f"{dataset}-segments",
                ON_SEGMENTS[title],
                changes=(
                    *(scale.line_search if title == "AT" else ()),
                    *(f"threat.count={count}", f"threat.seed={seed}", f"seed={seed}"),
                ),
                about={"method": title, "k": count, "seed": seed},
            )
            for title in of
            for count in scale.some(COUNTS)
            for seed in range(scale.seeds)
        ]

    return choice


def curves(x: str, values: Sequence[str], panel: str | None = None) -> Drawing:
    """Quantities over an axis, a colour for each method, with standard errors over the seeds."""
    return Curves(x=x, values=tuple(values), series=("method",), panel=panel, error_bars=True)


def gap(number: str, networks: Choice, along: str, claim: str) -> NetworkFigure:
    """Standard and robust errors of AT and COAP, whose gap widens."""
    return NetworkFigure(
        number=number,
        networks=networks,
        table=Each(RobustErrors()),
        drawing=curves(along, ERRORS),
        claim=claim,
        test=All(*(Widens(error, along, COAP, AT, by=("data",)) for error in ERRORS)),
    )


def unstable(number: str, networks: Choice, along: str, claim: str) -> NetworkFigure:
    """Unstable neurons in COAP's training, which become more."""
    return NetworkFigure(
        number=number,
        networks=networks,
        table=Each(UnstableNeurons()),
        drawing=curves(along, ("unstable, summed",)),
        claim=claim,
        test=Rises("unstable, summed", along, by=()),
    )
