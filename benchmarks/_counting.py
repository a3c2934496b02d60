"""What a computation would ask of an accelerator: how many operators it launches, and where it waits for the device.

    with Counter() as counted:
        training.step(...)
    counted.launches, counted.waits

Counted is what torch dispatches, so an accelerator need not be there. A launch is an operator that computes; views and
empty tensors are none. A wait is an operator after which Python cannot go on before the device is done:

    a value is read            .item(), bool(tensor), torch.equal
    a shape depends on values  nonzero, unique, bincount, repeat_interleave, and indices that are truth values
    a copy between devices     unless it is non_blocking; so is a tensor that is made of Python's numbers

On the CPU all tensors are taken to lie on the accelerator; so a copy to the CPU is seen by the method that is called
(.cpu(), .numpy(), .tolist()), and another copy between devices is not. Where the library takes another way on an
accelerator, `Counter` makes it take that way.
"""

from __future__ import annotations

import sys
from collections import Counter as Counts
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ctbench import waiting

LIBRARY = str(Path(waiting.__file__).parent)
METHODS = ("cpu", "numpy", "tolist")
READS = {"_local_scalar_dense", "item", "is_nonzero", "equal"}
SHAPES = {"nonzero", "masked_select", "unique_dim", "_unique", "_unique2", "unique_consecutive", "bincount"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
COPIES = {"_to_copy", "copy_", "_copy_from", "_copy_from_and_resize"}
FROM_PYTHON = "lift_fresh"  # what torch.tensor and new_tensor end with
# no launches: they make or change what torch knows of a tensor
FREE = {"detach", "alias", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view", "view"}
FREE |= {"_reshape_alias", "set_", "resize_", "new_empty_strided", *READS}


class Counter(TorchDispatchMode):
    """Counts while it is entered, also what autograd does.

    Attributes:
        operators: how often each operator was launched, by its name.
        reasons: how often each operator waited.
        places: the lines of the library that waited, with what they called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators, self.reasons, self.places = Counts[str](), Counts[str](), Counts[str]()
        self._entered = ExitStack()

    @property
    def launches(self) -> int:
        return self.operators.total()

    @property
    def waits(self) -> int:
        return self.reasons.total()

    def __enter__(self) -> Self:
        self._entered.enter_context(patch.object(waiting, "is_free", lambda tensor: False))
        for name in METHODS:
            self._entered.enter_context(patch.object(Tensor, name, self._noting(name, getattr(Tensor, name))))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._entered.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name not in FREE and not func.is_view:
            self.operators[name] += 1
        if _waits(name, func, args, kwargs, found):
            self._wait(name)
        return found

    def _wait(self, name: str) -> None:
        self.reasons[name] += 1
        self.places[f"{_line()}: {name}"] += 1

    def _noting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """A method of tensors that is dispatched only where there is a device."""

        def noted(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
            if tensor.device.type == "cpu":
                self._wait(name)
            return method(tensor, *arguments, **options)

        return noted


def counted(run: Callable[[], object]) -> Counter:
    """What a call launches and waits for."""
    with Counter() as counter:
        run()
    return counter


def _waits(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], found: object) -> bool:
    if name in READS | SHAPES or name == FROM_PYTHON:
        return True
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if name in INDEXING:
        return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tree_leaves(args[1]) if tensor is not None)
    if name == "repeat_interleave":
        return "output_size" not in kwargs or kwargs["output_size"] is None
    if name in COPIES and not kwargs.get("non_blocking", False):
        result = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        return len({tensor.device for tensor in (*tensors, *result)}) > 1
    return False


def _line() -> str:
    """The innermost line of the library on the stack, as "loop.py:12"."""
    frame = sys._getframe()
    while not frame.f_code.co_filename.startswith(LIBRARY):
        if frame.f_back is None:
            return "elsewhere"
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
