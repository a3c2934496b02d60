"""The certification of test images, of what a study has chosen and of trials in hindsight. No other part reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ctbench.engine import Engine
from ctbench.results import Certification, RunFolder
from ctbench.training import Recipe, load_run
from ctbench.tuning.plan import Plan
from ctbench.tuning.trial import Begun, Outcome, Place, Watch
from ctbench.verify import Records, certify, stages_by_name
from ctbench.verify.trained import about


@dataclass(frozen=True)
class FinalCertification:
    """How runs of a study are certified on its test images.

    Args:
        plan: of the study; it says how many images.
        stages: the name of the cascade.
        timeout: seconds for each image.
        selection: what the settings of the records say about the choice.
        engine: where images are certified.
        place: where the data set is.
        watch: told when a certification begins and ends.
    """

    plan: Plan
    stages: str
    timeout: float
    selection: Mapping[str, str]
    engine: Engine
    place: Place
    watch: Watch

    def __call__(
        self, name: str, recipe: Recipe, folder: RunFolder, records: Path, *, unfinished: int
    ) -> Certification:
        """Certify a trained run; an interrupted certification goes on.

        Args:
            name: of the run, for `watch`.
            recipe: whose data set has the test images; that of a trial has none.
            folder: of the run.
            records: the file of the records.
            unfinished: how many runs have not ended, with this one.
        """
        x, y = recipe.dataset.load(self.place.data).test[: self.plan.samples]
        self.watch(name, Begun("certify", records, len(x), unfinished))
        certification = certify(
            load_run(folder.path).model.to(self.engine.home),
            x,
            y,
            recipe.threat,
            stages=stages_by_name(self.stages),
            timeout=self.timeout,
            records=Records(records, resume=True, about={**about(recipe), **self.selection}),
            engine=self.engine,
        )
        self.watch(name, Outcome(state="complete", certified_accuracy=certification.certified_accuracy))
        return certification
