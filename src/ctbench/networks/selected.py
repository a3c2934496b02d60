"""Networks of other arguments and results as networks of one tensor each.

Selected(model, output="logits")                                  of a dict, a named tuple, or an object
Selected(model, output=0)                                         of a tuple
Selected(model, argument="image", given={"mask": mask})           one argument varies, the others are given
TwoClasses(model)                                                 one score z as the two logits [0, z]
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class SelectionError(ValueError):
    """A network does not have the arguments, or the output, that were chosen."""


class Selected(nn.Module):
    """A network with one of its arguments, and one of its outputs.

    Args:
        model: the network.
        output: the output that counts: the place in a tuple or list, the key of a dict, or the name of an attribute.
            None if the network returns one tensor.
        argument: the name of the argument that varies; by default the first one.
        given: the other arguments, by name. A tensor is that of one sample, [1, *shape], and the same for all samples.

    Raises:
        ValueError: a given tensor has several samples; or the forward of the network does not take these arguments; or,
            when it is called, its result has no such output.
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
        _check_arguments(model, argument, given or {})
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
        return result if self.output is None else _chosen(result, self.output)  # type: ignore[no-any-return]


def _check_arguments(model: nn.Module, argument: str | None, given: Mapping[str, Any]) -> None:
    """Raise SelectionError if a forward does not take these arguments."""
    signature = inspect.signature(model.forward)
    varied = {} if argument is None else {argument: None}
    try:
        signature.bind(*(() if varied else (None,)), **varied, **given)
    except TypeError as error:
        raise SelectionError(
            f"{type(model).__name__}.forward takes {signature}, given are "
            f"{', '.join(map(repr, given)) or 'none'} besides "
            f"{'the first argument' if argument is None else repr(argument)} ({error}): name its arguments, as in "
            f"given={{'mask': mask}}"
        ) from None


def _chosen(result: Any, output: int | str) -> Any:
    """One of the outputs of a network. Raises SelectionError if there is no such output."""
    if isinstance(result, Mapping):
        if output in result:
            return result[output]
        there = f"a dict of {', '.join(map(repr, result))}"
    elif isinstance(output, str):
        if hasattr(result, output):
            return getattr(result, output)
        names = getattr(result, "_fields", None) or list(getattr(result, "__dict__", {}))
        named = f" with {', '.join(map(repr, names))}" if names and not isinstance(result, Tensor) else ""
        there = f"a {type(result).__name__}{named}"
        there += f" of {len(result)}" if isinstance(result, tuple | list) and not named else ""
    elif not isinstance(result, tuple | list) or -len(result) <= output < len(result):
        return result[output]
    else:
        there = f"a {type(result).__name__} of {len(result)}"
    raise SelectionError(f"the network has no output {output!r}: it returns {there}; choose one of these as output=...")


class TwoClasses(nn.Module):
    """A network of one score z, [B] or [B, 1], as one of two logits [0, z]: class 1 wins if z > 0."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        score = self.model(x).reshape(-1, 1)
        return torch.cat([0.0 * score, score], dim=1)
