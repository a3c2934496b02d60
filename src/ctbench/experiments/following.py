"""The share of unstable neurons after each epoch of a training, kept in the run folder.

    sum over epochs t of UnstNeur(f_t),   UnstNeur = the share of neurons with l <= 0 <= u over images and neurons

De Bartolomeis et al. 2023, "How robust accuracy suffers from certified training with convex relaxations", Eq. (4) and
section 4. l, u are COAP's exact bounds at the radius of the test, also where training estimates them by projections.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from ctbench.analyses.neurons import neuron_states
from ctbench.domains import coap
from ctbench.graph import freeze, trace
from ctbench.results import RunFolder, jsonl
from ctbench.training import Recipe, checkpoints
from ctbench.training.blueprint import Blueprint


@dataclass(frozen=True, eq=False)
class Following:
    """Counts unstable neurons after each epoch: the `on_epoch` of a training.

    Args:
        recipe: the recipe of the run.
        folder: its run folder.
        count: the number of training images, the first ones.
        root: the folder of the data sets.
    """

    recipe: Recipe
    folder: RunFolder
    count: int
    root: Path | None = None

    def __call__(self, metrics: Mapping[str, float], model: nn.Module) -> None:
        jsonl.append(self.folder.unstable, [{"epoch": int(metrics["epoch"]), "unstable": self.share(model)}])

    @torch.no_grad()
    def share(self, model: nn.Module) -> float:
        """The share of unstable neurons of a network in eval mode."""
        x = self._images.to(next(model.parameters()).device)
        net, region = freeze(trace(model, tuple(x.shape[1:])), x[:1])[0], self.recipe.threat.region(x)
        return neuron_states(net, region, boxes=coap.boxes(net, region)).unstable

    def catch_up(self) -> None:
        """Count for the last epoch, if training was interrupted after it was saved and before it was counted."""
        if self.folder.unstable.exists():
            jsonl.rewrite(self.folder.unstable, jsonl.read(self.folder.unstable))  # without a truncated line
        if not self.folder.state.exists() or self.folder.weights.exists():
            return
        state = checkpoints.load_state(self.folder.state)
        if state.epochs_done and state.epochs_done not in self._recorded():
            data = self.recipe.dataset.load(self.root)
            model = Blueprint.of(self.recipe.network, data, normalize=self.recipe.normalize).build()
            model.load_state_dict(state.model)
            self({"epoch": state.epochs_done}, model.eval())

    def shares(self) -> list[float]:
        """The shares after all epochs.

        Raises:
            ValueError: an epoch has no record.
        """
        recorded = self._recorded()
        missing = [epoch for epoch in range(1, self.recipe.epochs + 1) if epoch not in recorded]
        if missing:
            raise ValueError(
                f"{self.folder.unstable} lacks epoch {missing[0]}: {self.folder.path} was not trained for a figure of "
                f"unstable neurons, move it away to train it again"
            )
        return [recorded[epoch] for epoch in range(1, self.recipe.epochs + 1)]

    def _recorded(self) -> dict[int, float]:
        return {record["epoch"]: record["unstable"] for record in jsonl.read(self.folder.unstable)}

    @cached_property
    def _images(self) -> Tensor:
        images = self.recipe.dataset.load(self.root).train[: self.count][0]
        return self.recipe.dataset.augmentation.center(images)
