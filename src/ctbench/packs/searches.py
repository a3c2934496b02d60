"""Checks of the trials of a search for radii: samples, bisections, predictions, and verdicts that are found again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from ctbench.packs.again import Again, attack_again, prove_again
from ctbench.packs.claims import Claim, ClaimError, claim
from ctbench.packs.predictions import check_predictions
from ctbench.packs.stated import check_name, samples_of
from ctbench.packs.subject import Subject
from ctbench.regions import Threat
from ctbench.results import SampleRecord, Verdict
from ctbench.results.radii import RadiusFiles, Trial
from ctbench.verify.radius_search import Bracket, Grid


def claims(files: RadiusFiles, about: str, subject: Subject, again: Again) -> Iterator[Claim]:
    """The claims of a search for radii, each with what the check found. Later ones need the first two."""
    check = _Check(files, about, subject, again)
    for look in (check.settings, check.trials):
        found = claim(about, look)
        yield found
        if not found.holds:
            return
    yield claim(about, check.predictions)
    yield claim(about, check.verdicts)
    yield claim(about, check.attacks)


@dataclass(eq=False)
class _Check:
    """The checks of one search, in their order."""

    files: RadiusFiles
    about: str
    subject: Subject
    again: Again
    threat: Threat | None = None
    grid: Grid | None = None
    made: list[Trial] = field(default_factory=list)

    def settings(self) -> str:
        """Whether the settings are about this network, these data, and the radii that they describe."""
        settings = self.files.read_settings()
        self.subject = self.subject.of(settings.get("dataset", self.subject.title))
        self.subject.check_settings(settings)
        self.threat = self.subject.threat_of(settings)
        check_name(self.files.records.stem, self.threat)
        largest, tolerance = settings["largest"], settings["tolerance"]
        self.grid = Grid(largest, round(largest / tolerance))
        if largest != self.threat.eps or tolerance != self.grid.tolerance:
            raise ClaimError(
                f"its eps is {self.threat.eps!r}, its largest radius {largest!r} and its tolerance {tolerance!r}: "
                f"these do not agree"
            )
        threat = f"{self.threat.name} up to eps {largest!r} in {self.grid.number} steps"
        return f"{threat}, of this network and of {self.subject.title}"

    def trials(self) -> str:
        """Whether each sample has exactly the trials that its bisection asks for, about its image."""
        assert self.grid is not None, "the settings were checked first"
        self.files.read()  # raises if trials contradict each other
        self.made = self.files.trials()
        settings, records = self.files.read_settings(), [trial.record for trial in self.made]
        if "samples" not in settings:
            raise ClaimError("its settings do not say which samples were to be tried")
        wanted = samples_of(records, settings)
        self.subject.check_inputs(records)
        by_index: dict[int, list[Trial]] = {}
        for trial in self.made:
            by_index.setdefault(trial.record.index, []).append(trial)
        for index in wanted:
            check_bisection(index, by_index[index], self.grid)
        samples = f"samples {wanted[0]} to {wanted[-1]} of {len(self.subject.data.test)} test images"
        return f"{samples}, each with all trials that its search asks for, {len(self.made)} in all"

    def predictions(self) -> str:
        """Whether the network is right at the clean inputs where the trials say it, and wrong where they say that."""
        records = [trial.record for trial in self.made]
        return check_predictions(self.subject, records, f"{len(records)} trials")

    def verdicts(self) -> str:
        """Whether verdicts are found again for a random part of the samples.

        The largest certified radius must be certified again, and the smallest falsified one must not be certified.
        """
        chosen, sizes = list[Trial](), dict[Verdict, tuple[int, int]]()
        for verdict, best in ((Verdict.CERTIFIED, max), (Verdict.FALSIFIED, min)):
            ends = self._ends(verdict, best)
            part = [ends[index] for index in self.again.chosen(sorted(ends), self.about)]
            sizes[verdict] = len(part), len(ends)
            chosen += part
        found = Counter[tuple[Verdict, Verdict]]()
        for threat, records in self._by_threat(chosen):
            found += prove_again(self.subject, threat, records, self.again)
        (proved, certified), (tried, falsified) = sizes.values()
        return (
            f"{proved} of {certified} samples were certified again at their largest radius; "
            f"{found[Verdict.FALSIFIED, Verdict.FALSIFIED]} of {falsified} were falsified again at their smallest one, "
            f"{tried} were tried, none was certified"
        )

    def attacks(self) -> str:
        """What an attack finds at the largest radius of a random part of the samples where a trial is open."""
        ends = self._ends(Verdict.UNKNOWN, max)
        chosen = [ends[index] for index in self.again.chosen(sorted(ends), self.about)]
        falsified = sum(
            attack_again(self.subject, threat, [record.index for record in records], self.again)
            for threat, records in self._by_threat(chosen)
        )
        return (
            f"of {len(ends)} samples with an open trial an attack tried {len(chosen)} at the largest open radius, and "
            f"falsified {falsified}; nothing proves that samples have no counterexamples at smaller radii than said"
        )

    def _ends(self, verdict: Verdict, best: Callable[[float, float], float]) -> dict[int, Trial]:
        """The trial of each sample at its largest or smallest radius with a verdict, by the index of the sample."""
        ends = dict[int, Trial]()
        for trial in self.made:
            if trial.record.verdict is verdict:
                before = ends.get(trial.record.index, trial)
                ends[trial.record.index] = trial if best(before.eps, trial.eps) == trial.eps else before
        return ends

    def _by_threat(self, trials: list[Trial]) -> Iterator[tuple[Threat, list[SampleRecord]]]:
        """The records of trials at each radius, with its threat model."""
        assert self.threat is not None, "the settings were checked first"
        for eps in sorted({trial.eps for trial in trials}):
            yield replace(self.threat, eps=eps), [trial.record for trial in trials if trial.eps == eps]


def check_bisection(index: int, trials: list[Trial], grid: Grid) -> None:
    """Search the radii of a sample with the verdicts of its trials.

    Raises:
        ClaimError: the search asks for a radius that was not tried, or there are trials for which it does not ask.
    """
    at = {trial.eps: trial.record.verdict for trial in trials}
    if len(at) < len(trials):
        raise ClaimError(f"sample {index} has two trials at one radius")
    bracket = Bracket(grid.number + 1)
    while (radius := bracket.next()) is not None:
        if (verdict := at.pop(grid.eps(radius), None)) is None:
            raise ClaimError(
                f"sample {index} lacks a trial at eps {grid.eps(radius)!r}, for which its search asks: if its job was "
                f"interrupted, finish it with --resume"
            )
        bracket.learn(radius, verdict)
    if at:
        raise ClaimError(f"sample {index} has a trial at eps {min(at)!r}, for which its search does not ask")
