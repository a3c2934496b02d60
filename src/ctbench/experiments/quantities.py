"""What figures of trained networks measure: quantities as rows of a table, from the records of the networks.

    Each(Accuracies(), Analysed(Tightness(), "tightness"))(networks, [NetworkOf("mnist_01", "ibp")])

A row is a dictionary: first what the network is (setting, method, ...), then numbers. Accuracies are in percent.
"""

from __future__ import annotations

import itertools
import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ctbench.analyses import Analysis, BoxGrowth, LossErrors, OwnAccuracy
from ctbench.analyses.loss_errors import ESTIMATES
from ctbench.experiments.networks import NetworkOf, Networks, Value
from ctbench.experiments.setting import ORIGINAL
from ctbench.methods.taps import TAPS
from ctbench.results import Certification, Verdict, compare_certifications, published_results

Numbers = dict[str, Value]
BOX, DEEPPOLY = ("interval",), ("interval", "crown-ibp", "crown")  # the stages of the two cheap verifiers
ESTIMATE = {"ibp": "interval", "sabr": "sabr", "taps": "taps", "pgd": "pgd"}  # of the worst-case loss, by method


class Quantity(ABC):
    """A quantity of one network."""

    @abstractmethod
    def rows(self, networks: Networks, network: NetworkOf) -> list[Numbers]:
        """Its rows, without the columns that say what the network is."""


class Table(ABC):
    """The rows of a figure."""

    @abstractmethod
    def __call__(self, networks: Networks, figure: Sequence[NetworkOf]) -> list[Numbers]:
        """All rows, from the networks of the figure."""


@dataclass(frozen=True)
class Each(Table):
    """For each network all its quantities side by side, in rows that agree in the columns that quantities share."""

    quantities: tuple[Quantity, ...]

    def __init__(self, *quantities: Quantity) -> None:
        object.__setattr__(self, "quantities", quantities)

    def __call__(self, networks: Networks, figure: Sequence[NetworkOf]) -> list[Numbers]:
        rows = list[Numbers]()
        for network in figure:
            joined: list[Numbers] = [networks.labels(network)]
            for quantity in self.quantities:
                pairs = itertools.product(joined, quantity.rows(networks, network))
                joined = [{**row, **more} for row, more in pairs if _agree(row, more)]
            rows += joined
        return rows


def _agree(first: Numbers, second: Numbers) -> bool:
    return all(first[name] == second[name] for name in first.keys() & second.keys())


@dataclass(frozen=True, kw_only=True)
class Accuracies(Quantity):
    """Natural, adversarial and certified accuracy, also by the bounds of intervals and of DeepPoly alone, and costs.

    Args:
        stages: the cascade; None is that of the scale.
        few: whether to certify few images, where most of them take the whole time limit.
    """

    stages: str | None = None
    few: bool = False

    def rows(self, networks: Networks, network: NetworkOf) -> list[Numbers]:
        certification = networks.certification(network, self.stages, few=self.few)
        return [
            {
                "natural": 100 * certification.natural_accuracy,
                "adversarial": 100 * certification.adversarial_accuracy,
                "certified": 100 * certification.certified_accuracy,
                "certified error": 100 - 100 * certification.certified_accuracy,
                "box": _certified_by(certification, BOX),
                "deeppoly": _certified_by(certification, DEEPPOLY),
                "samples": len(certification),
                "training s": networks.training_seconds(network),
                "certification s": certification.seconds,
            }
        ]


@dataclass(frozen=True)
class RobustErrors(Quantity):
    """Standard and robust error, and the accuracy discrepancies of both, in percent, with the norm and radius.

    The robust error is that under the attacks of the scale.
    """

    def rows(self, networks: Networks, network: NetworkOf) -> list[Numbers]:
        recipe, attacked = networks.recipe(network), networks.attacked(network)
        return [
            {
                "data": recipe.dataset.title,
                "norm": recipe.threat.name,
                "eps": float(recipe.threat.eps),
                "standard error": 100 - 100 * attacked.natural_accuracy,
                "robust error": 100 - 100 * attacked.adversarial_accuracy,
                "discrepancy": 100 * attacked.natural_discrepancy,
                "robust discrepancy": 100 * attacked.robust_discrepancy,
                "samples": len(attacked),
            }
        ]


@dataclass(frozen=True)
class UnstableNeurons(Quantity):
    """The share of unstable neurons: summed over the epochs of training, and in percent after the last one."""

    def rows(self, networks: Networks, network: NetworkOf) -> list[Numbers]:
        recipe, shares = networks.recipe(network), networks.unstable(network)
        return [{"eps": float(recipe.threat.eps), "unstable, summed": sum(shares), "unstable": 100 * shares[-1]}]


def _certified_by(certification: Certification, stages: tuple[str, ...]) -> float:
    proved = sum(record.verdict is Verdict.CERTIFIED and record.stage in stages for record in certification)
    return 100 * proved / len(certification)


@dataclass(frozen=True)
class Published(Table):
    """The rows of another table with "by" = "here", and the published results of their settings and methods.

    Args:
        table: the other table.
        papers: whose tables; all papers if it is empty.
    """

    table: Table
    papers: tuple[str, ...] = ()

    def __call__(self, networks: Networks, figure: Sequence[NetworkOf]) -> list[Numbers]:
        rows: list[Numbers] = [{**row, "by": "here"} for row in self.table(networks, figure)]
        by_setting = {network.setting: networks.recipe(network) for network in figure}
        for setting, recipe in by_setting.items():
            about = networks.labels(NetworkOf(setting, "ibp"))
            for result in published_results():
                same = (result.dataset, result.norm) == (recipe.dataset.name, recipe.threat.name)
                close = math.isclose(result.eps, float(recipe.threat.eps), rel_tol=1e-6)
                if same and close and (not self.papers or result.paper in self.papers):
                    rows.append({**about, "method": result.method, "by": result.by, **_of(result)})
        return rows


@dataclass(frozen=True)
class OnlyBest(Table):
    """The rows of another table; of some methods, only the row with the lowest value in each setting.

    Args:
        table: the other table.
        methods: these methods.
        column: the value.
    """

    table: Table
    methods: tuple[str, ...]
    column: str

    def __call__(self, networks: Networks, figure: Sequence[NetworkOf]) -> list[Numbers]:
        rows = self.table(networks, figure)
        best: dict[Value, Numbers] = {}
        for row in rows:
            if row["method"] in self.methods:
                best[row["setting"]] = min(best.get(row["setting"], row), row, key=self._value)
        return [row for row in rows if row["method"] not in self.methods or row is best[row["setting"]]]

    def _value(self, row: Numbers) -> float:
        value = row[self.column]
        assert isinstance(value, int | float), f"{self.column} is no number"
        return value


def _of(result: Any) -> Numbers:
    accuracies = result.accuracies
    row: Numbers = {
        "natural": accuracies.natural,
        "adversarial": accuracies.adversarial,
        "certified": accuracies.certified,
        "source": f"{result.paper}, {result.table}",
    }
    errors = {"standard error": accuracies.natural, "robust error": accuracies.adversarial}
    errors["certified error"] = accuracies.certified
    return {**row, **{name: None if accuracy is None else 100 - accuracy for name, accuracy in errors.items()}}


@dataclass(frozen=True)
class Analysed(Quantity):
    """The means of some quantities of an analysis, with "eps" and, if it has an axis, its place.

    Args:
        analysis: the analysis.
        quantities: their names; all except those of layers if there is no name.
        settings: the settings whose radii are used; by default that of the network.
        called: the column of a single quantity; by default its name.
    """

    analysis: Analysis
    quantities: tuple[str, ...] = ()
    settings: tuple[str, ...] = field(default=(), kw_only=True)
    called: str | None = field(default=None, kw_only=True)

    def rows(self, networks: Networks, network: NetworkOf) -> list[Numbers]:
        settings = networks.scale.distinct(*self.settings) or [network.setting]
        return [row for setting in settings for row in self._at(networks, network, setting)]

    def _at(self, networks: Networks, network: NetworkOf, setting: str) -> Iterator[Numbers]:
        eps = networks.eps(NetworkOf(setting, network.method))
        measurements = networks.analysis(network, self.analysis, eps=eps)
        axis = self.analysis.layout.x_label if self.analysis.layout and self.analysis.layout.x_label else "x"
        for x in measurements.places(eps):
            names = [name for name in measurements.quantities(eps, x) if not name.startswith("layer ")]
            shown = [name for name in names if not self.quantities or name in self.quantities]
            if shown:
                place: Numbers = {} if x is None else {axis: x}
                yield {"eps": eps, **place, **{self.called or name: measurements.mean(name, eps, x) for name in shown}}


@dataclass(frozen=True)
class LayerGrowth(Quantity):
    """The growth rate of interval boxes in each layer, by the share lambda of the radius: a row for each of both."""

    def rows(self, networks: Networks, network: NetworkOf) -> list[Numbers]:
        measurements = networks.analysis(network, BoxGrowth())
        return [
            {"lambda": share, "layer": name.removeprefix("layer "), "op": name.rpartition(": ")[2], "growth": rate}
            for share in measurements.places()
            for name in measurements.quantities(x=share)
            if name.startswith("layer ")
            for rate in [measurements.mean(name, x=share)]
        ]


@dataclass(frozen=True)
class Errors(Quantity):
    """The errors of estimates of the worst-case loss against exact programs: a row for each estimate and image.

    Images whose programs did not end have no row: "open" is their share.

    Args:
        own: only the estimate that the network was trained with.
    """

    own: bool = False

    def rows(self, networks: Networks, network: NetworkOf) -> list[Numbers]:
        errors = networks.analysis(network, LossErrors(), samples=networks.scale.exact)
        undecided = errors.mean("open")
        names = [ESTIMATE[network.method.removesuffix(ORIGINAL)]] if self.own else list(ESTIMATES)
        return [
            {"estimate": name, "error": error, "|error|": abs(error), "open": undecided}
            for name in names
            for error in errors.values(name)
        ]


@dataclass(frozen=True)
class OwnAccuracies(Quantity):
    """The accuracy that a method itself estimates, in percent, at the network's radius.

    Args:
        splits: whether to use TAPS at each split of the scale, in the column "test split"; else the network's method.
    """

    splits: bool = False

    def rows(self, networks: Networks, network: NetworkOf) -> list[Numbers]:
        if not self.splits:
            return [{"own": self._own(networks, network, OwnAccuracy())}]
        asked = {split: OwnAccuracy(method=TAPS(classifier_relus=split)) for split in networks.scale.splits}
        return [{"test split": split, "own": self._own(networks, network, one)} for split, one in asked.items()]

    @staticmethod
    def _own(networks: Networks, network: NetworkOf, asked: OwnAccuracy) -> float:
        return 100 * networks.analysis(network, asked).mean("own accuracy")


@dataclass(frozen=True)
class Corruptions(Quantity):
    """The accuracy on each corruption over the clean accuracy, and their mean."""

    def rows(self, networks: Networks, network: NetworkOf) -> list[Numbers]:
        result = networks.generalisation(network)
        ratios: list[Numbers] = [{"corruption": name, "ratio": result.ratio(name)} for name in result.corruptions]
        return [*ratios, {"corruption": "mean", "ratio": result.mean()}]


@dataclass(frozen=True)
class Spread(Table):
    """The means and standard deviations of the columns of another table over its rows of a setting and method."""

    table: Table
    columns: tuple[str, ...] = ("natural", "adversarial", "certified")

    def __call__(self, networks: Networks, figure: Sequence[NetworkOf]) -> list[Numbers]:
        groups: dict[tuple[Value, Value], list[Numbers]] = {}
        for row in self.table(networks, figure):
            groups.setdefault((row["setting"], row["method"]), []).append(row)
        return [
            {"setting": setting, "method": method, "networks": len(rows), **self._spread(rows)}
            for (setting, method), rows in groups.items()
        ]

    def _spread(self, rows: list[Numbers]) -> Numbers:
        spread: Numbers = {}
        for name in self.columns:
            values = [float(value) for row in rows if isinstance(value := row[name], int | float)]
            spread |= {name: statistics.fmean(values)}
            spread |= {f"{name}, deviation": statistics.stdev(values) if len(values) > 1 else None}
        return spread


@dataclass(frozen=True)
class Estimated(Table):
    """The rows of another table, and one more for each data set: how well a quantity estimates others over all rows.

    It has the correlation with each other quantity, and the mean and the standard deviation of the differences.

    Args:
        table: the other table.
        estimate: the quantity.
        of: the other quantities.
    """

    table: Table
    estimate: str
    of: tuple[str, ...]

    def __call__(self, networks: Networks, figure: Sequence[NetworkOf]) -> list[Numbers]:
        groups: dict[str, list[NetworkOf]] = {}
        for network in figure:
            groups.setdefault(networks.recipe(network).dataset.title, []).append(network)
        tables = {
            name: [{**row, "data": name} for row in self.table(networks, group)] for name, group in groups.items()
        }
        return [*itertools.chain(*tables.values()), *(self._summary(name, rows) for name, rows in tables.items())]

    def _summary(self, name: str, rows: list[Numbers]) -> Numbers:
        summary: Numbers = {"setting": f"{name}, all networks", "data": name, "networks": len(rows)}
        for other in self.of:
            pairs = [(row[self.estimate], row[other]) for row in rows]
            both = [(float(a), float(b)) for a, b in pairs if isinstance(a, int | float) and isinstance(b, int | float)]
            if not both:
                continue
            estimates, values = zip(*both, strict=True)
            varied = len(set(estimates)) > 1 and len(set(values)) > 1
            summary[f"correlation with {other}"] = statistics.correlation(estimates, values) if varied else None
            differences = [estimate - value for estimate, value in zip(estimates, values, strict=True)]
            summary[f"{self.estimate} - {other}"] = statistics.fmean(differences)
            several = len(differences) > 1
            summary[f"{self.estimate} - {other}, deviation"] = statistics.stdev(differences) if several else None
        return summary


@dataclass(frozen=True)
class SharedMistakes(Table):
    """How many networks of a setting certify each image, and how many would if they were independent.

    Args:
        stages: cascades to compare on each network; by default the networks of a setting are compared.
    """

    stages: tuple[str, ...] = ()

    def __call__(self, networks: Networks, figure: Sequence[NetworkOf]) -> list[Numbers]:
        groups: dict[str, list[NetworkOf]] = {}
        for network in figure:
            about = networks.labels(network)
            key = f"{about['setting']}, {about['method']}" if self.stages else str(about["setting"])
            groups.setdefault(key, []).append(network)
        return [row for name, group in groups.items() for row in self._counts(name, networks, group)]

    def _counts(self, name: str, networks: Networks, group: list[NetworkOf]) -> Iterator[Numbers]:
        cascades = self.stages or (None,)
        files = [networks.certification_files(network, stages) for network in group for stages in cascades]
        agreement = compare_certifications(files)
        for number, (observed, expected) in enumerate(zip(agreement.observed, agreement.expected, strict=True)):
            yield {"setting": name, "succeeded": number, "observed": observed, "expected": expected}
