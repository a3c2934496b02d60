"""One optimisation step: the clean pass, the prelude of the method, the objective, the update of the weights."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ctbench.graph import Graph, folded, freeze
from ctbench.methods.base import Batch
from ctbench.training.execution import PLAIN, Execution, at_least_float32
from ctbench.training.monitoring import Finite
from ctbench.training.objective import accumulate_gradients
from ctbench.training.processes import ALONE, Processes
from ctbench.training.recipe import StepSettings


@dataclass(frozen=True, eq=False)
class Stepper:
    """Takes the optimisation steps of a run.

    Args:
        model: the network, whose weights and statistics each step changes.
        graph: the trace of the network.
        optimizer: the optimiser of the parameters of the network.
        finite: the record of the loss and the gradient of each step.
        device: the device of the network and its batches.
        execution: how the method is computed.
        processes: the processes that share each batch.
    """

    model: nn.Module
    graph: Graph
    optimizer: torch.optim.Optimizer
    finite: Finite
    device: torch.device
    execution: Execution = PLAIN
    processes: Processes = ALONE

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.model.parameters())

    def step(self, x: Tensor, y: Tensor, settings: StepSettings, generator: torch.Generator) -> dict[str, Tensor]:
        """Take one step, after the prelude of the method if it has one; returns means over the share of this process.

        No line waits for the device: the trainer looks for losses and gradients that are not finite at the end of the
        epoch. After the first of them, a fused optimiser changes no weight.
        """
        share = self.processes.share(len(y))
        graph, x, y = self.processes.synchronised(self.graph, share), x[share.samples], y[share.samples]
        net, batch = self.clean_pass(graph, x, y, settings, generator)
        prelude = self._prelude(net, batch, settings)
        if prelude is not None:
            self.optimizer.zero_grad(set_to_none=True)
            (share.weight * prelude).backward()
            self.processes.add_gradients(self.parameters)
            self._update()
            net, batch = self.clean_pass(graph, x, y, settings, generator)
        self.optimizer.zero_grad(set_to_none=True)
        means = accumulate_gradients(self.model, net, batch, settings, weight=share.weight, execution=self.execution)
        self.processes.add_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, settings.recipe.optimizer.clip_norm or math.inf)
        self.finite.add(means["loss"], norm)
        self._update()
        return means

    def clean_pass(
        self, graph: Graph, x: Tensor, y: Tensor, settings: StepSettings, generator: torch.Generator
    ) -> tuple[Graph, Batch]:
        """The graph frozen on a batch, and the batch with its logits and regions."""
        with self.execution.autocast(self.device):
            net, logits = freeze(graph, x, training=True)
        threat = replace(settings.recipe.threat, eps=settings.eps)
        return net, Batch.within(threat, x, y, at_least_float32(logits), generator)

    def rehearsed(
        self, x: Tensor, y: Tensor, examples: tuple[StepSettings, ...], generator: torch.Generator
    ) -> Stepper:
        """The stepper with an execution that works on this batch. Warns if this is not the current execution.

        Args:
            x, y: a batch of this process.
            examples: the settings of the steps to try; neither weights nor statistics change.
            generator: the source of the random draws of the method.
        """
        stepper = self
        while stepper.execution != PLAIN:
            failure = stepper._failure(x, y, examples, generator.clone_state())
            reasons = set(self.processes.gathered(failure)) - {""}
            if not reasons:
                break
            execution, message = stepper.execution.without(min(reasons))
            stepper = replace(stepper, execution=execution)
            if self.processes.first:
                warnings.warn(message, stacklevel=5)  # at the call of `train`
        return stepper

    def _failure(self, x: Tensor, y: Tensor, examples: tuple[StepSettings, ...], generator: torch.Generator) -> str:
        """The first line of the error that one of the steps raises, or "" if no step raises one."""
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        try:
            for settings in examples:
                net, batch = self.clean_pass(self.graph, x, y, settings, generator)
                self._prelude(net, batch, settings)
                accumulate_gradients(self.model, net, batch, settings, execution=self.execution)
        except RuntimeError as error:
            return str(error).strip().partition("\n")[0] or type(error).__name__
        finally:
            self.model.load_state_dict(before)
            self.optimizer.zero_grad(set_to_none=True)
        return ""

    def _prelude(self, net: Graph, batch: Batch, settings: StepSettings) -> Tensor | None:
        with self.execution.autocast(self.device):
            return settings.method.prelude(folded(net, len(batch.y)), batch)

    def _update(self) -> None:
        """Take a step of the optimiser. A fused optimiser skips it, on the device, after a loss that is not finite."""
        if self.optimizer.defaults.get("fused"):
            self.optimizer.found_inf = self.finite.broken  # type: ignore[attr-defined]  # as torch.amp's GradScaler does
        self.optimizer.step()
