"""Networks of other arguments and results as networks of one tensor each.

Selected(model, output="logits")                                  of a dict, a named tuple, or an object
Selected(model, output=0)                                         of a tuple
Selected(model, argument="image", given={"mask": mask})           one argument varies, the others are given
TwoClasses(model)                                                 one score z as the two logits [0, z]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Selected(nn.Module):
    """A network with one of its arguments, and one of its outputs.

    Args:
        model: the network.
        output: the output that counts: the place in a tuple or list, the key of a dict, or the name of an attribute.
            None if the network returns one tensor.
        argument: the name of the argument that varies; by default the first one.
        given: the other arguments, by name. A tensor is that of one sample, [1, *shape], and the same for all samples.

    Raises:
        ValueError: a given tensor has several samples.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        output: int | str | None = None,
        argument: str | None = None,
        given: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.output, self.argument = model, output, argument
        self.plain = dict[str, Any]()
        self.tensors = list[str]()
        for name, value in (given or {}).items():
            if isinstance(value, Tensor):
                if not value.dim() or len(value) != 1:
                    raise ValueError(
                        f"the given {name} has shape {list(value.shape)}: give that of one sample, [1, ...]"
                    )
                self.tensors.append(name)
                self.register_buffer(f"given_{name}", value, persistent=False)
            else:
                self.plain[name] = value

    def forward(self, x: Tensor) -> Tensor:
        given = {name: getattr(self, f"given_{name}") for name in self.tensors} | self.plain
        result: Any = self.model(x, **given) if self.argument is None else self.model(**{self.argument: x}, **given)
        if self.output is None:
            return result  # type: ignore[no-any-return]
        if isinstance(self.output, str) and not isinstance(result, Mapping):
            return getattr(result, self.output)  # type: ignore[no-any-return]
        return result[self.output]  # type: ignore[no-any-return]


class TwoClasses(nn.Module):
    """A network of one score z, [B] or [B, 1], as one of two logits [0, z]: class 1 wins if z > 0."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        score = self.model(x).reshape(-1, 1)
        return torch.cat([0.0 * score, score], dim=1)
