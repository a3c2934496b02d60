"""Figures and tables of trained networks as data: which networks, which quantities, which picture, which claim.

NetworkFigure(
    number="figure-4",
    networks=methods("mnist_01", "mnist_03"),
    table=Each(Analysed(Utilisation())),
    drawing=Bars(group="method", values=("utilisation",), colour="setting", panel=None),
    claim="TAPS and MTL-IBP deactivate more neurons than IBP at eps 0.1",
    test=Less("utilisation", called("taps", "mtl_ibp"), called("ibp")),
)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctbench.experiments.claims import Claim, Finding
from ctbench.experiments.networks import TITLES, NetworkOf, Networks
from ctbench.experiments.quantities import Table
from ctbench.experiments.scales import NetworkScale
from ctbench.files import write_whole
from ctbench.report.drawings import Drawing, rows_csv

CERTIFIED = ("ibp", "crown_ibp", "sabr", "taps", "staps", "mtl_ibp")
ADVERSARIAL = ("pgd", "edac")
METHODS = ("standard", *ADVERSARIAL, *CERTIFIED)
Choice = Callable[[NetworkScale], list[NetworkOf]]


@dataclass(frozen=True, kw_only=True)
class NetworkFigure:
    """A figure, a table or a theorem of a paper.

    Args:
        number: e.g. "figure-3" or "table-1".
        networks: from a scale to the networks that it shows.
        table: its rows.
        claim: what the paper says about it.
        test: the claim, as a function of the rows.
        drawing: its picture; None for tables.
    """

    number: str
    networks: Choice
    table: Table
    claim: str
    test: Claim
    drawing: Drawing | None = None

    @property
    def records(self) -> str:
        """Where its numbers come from."""
        return "trained networks"

    def reproduce(self, networks: Networks, folder: Path) -> tuple[list[Path], Finding]:
        """Measure missing numbers; write NUMBER.csv, NUMBER.txt with the finding, and NUMBER.png if it is a picture.

        Raises:
            NotInTimeError: the deadline of the networks passed.
        """
        rows = self.table(networks, self.networks(networks.scale))
        finding, places = self.test(rows), [folder / f"{self.number}.csv", folder / f"{self.number}.txt"]
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(places[0], rows_csv(rows).encode())
        write_whole(places[1], f"Claim: {self.claim}.\n{networks.scale.name}: {finding}.\n".encode())
        if self.drawing:
            places.append(folder / f"{self.number}.png")
            self.drawing.draw(rows, f"{self.number}, scale {networks.scale.name}", places[-1])
        return places, finding


def methods(*settings: str, of: Sequence[str] = METHODS) -> Choice:
    """Each of some methods in each of some settings."""
    return lambda scale: [NetworkOf(setting, method) for setting in scale.distinct(*settings) for method in of]


def varied(*settings: str, method: str, field: str, name: str, values: Sequence[float]) -> Choice:
    """One method with several values of a field of its recipe.

    Args:
        settings: of the paper.
        method: the method.
        field: the path of the field in the recipe, e.g. "method.ratio".
        name: the column of the values.
        values: its values, of which a scale may select some.
    """
    return lambda scale: [
        NetworkOf(setting, method, changes=(*scale.sweep, f"{field}={value}"), about={name: value})
        for setting in scale.distinct(*settings)
        for value in scale.some(values)
    ]


def splits(*settings: str, changes: Mapping[str, tuple[str, ...]] | None = None) -> Choice:
    """TAPS with each number of ReLUs in the classifier, in the column "split".

    Args:
        settings: of the paper.
        changes: variants by name, in the column "variant", and their changes of the recipe.
    """

    def choice(scale: NetworkScale) -> list[NetworkOf]:
        return [
            NetworkOf(
                setting,
                "taps_original",
                changes=(*scale.sweep, *scale.deep, f"method.classifier_relus={split}", *more),
                about={"split": split, **({"variant": variant} if variant else {})},
            )
            for setting in scale.distinct(*settings)
            for variant, more in (changes or {"": ()}).items()
            for split in scale.splits
        ]

    return choice


def called(*methods: str) -> dict[str, tuple[str, ...]]:
    """The rows of some methods, for claims."""
    return {"method": tuple(TITLES[method] for method in methods)}


def no_networks(_: NetworkScale) -> list[NetworkOf]:
    """For closed forms."""
    return []
