"""Count the operators that a computation launches on an accelerator, and the places where it waits for the device.

    with Counter() as counted:
        training.step(...)
    counted.launches, counted.waits

The counter sees the operators that torch dispatches, so no accelerator is needed. A launch is an operator that
computes; views and empty tensors are not launches. A wait is an operator after which Python must wait until the device
is done:

    a value is read            .item(), bool(tensor), torch.equal
    a shape depends on values  nonzero, unique, bincount, repeat_interleave, and indices that are truth values
    a copy between devices     unless it is non_blocking; also a tensor that is made from Python numbers

On the CPU, all tensors count as tensors of the accelerator. A copy to the CPU is recognised by the method that is
called (.cpu(), .numpy(), .tolist()); other copies between devices are not recognised. Where the library does something
else on an accelerator, `Counter` makes it do that.
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
FROM_PYTHON = "lift_fresh"  # the last operator of torch.tensor and new_tensor
# not launches: they only change how torch describes a tensor
FREE = {"detach", "alias", "lift_fresh", "empty", "empty_like", "empty_strided", "new_empty", "_unsafe_view", "view"}
FREE |= {"_reshape_alias", "set_", "resize_", "new_empty_strided", *READS}


class Counter(TorchDispatchMode):
    """Counts while it is entered, including the operators of autograd.

    Attributes:
        operators: the number of launches of each operator, by its name.
        reasons: the number of waits of each operator.
        places: the lines of the library that waited, with the operator that they called.
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
        result = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        if name not in FREE and not func.is_view:
            self.operators[name] += 1
        if _waits(name, func, args, kwargs, result):
            self._wait(name)
        return result

    def _wait(self, name: str) -> None:
        self.reasons[name] += 1
        self.places[f"{_line()}: {name}"] += 1

    def _noting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, and a count of its calls: torch dispatches it only if there is a device."""

        def noted(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
            if tensor.device.type == "cpu":
                self._wait(name)
            return method(tensor, *arguments, **options)

        return noted


def counted(run: Callable[[], object]) -> Counter:
    """The launches and waits of a call."""
    with Counter() as counter:
        run()
    return counter


def _waits(name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: object) -> bool:
    """Whether Python waits for the device after this operator."""
    if name in READS | SHAPES or name == FROM_PYTHON:
        return True
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if name in INDEXING:
        return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in tree_leaves(args[1]) if tensor is not None)
    if name == "repeat_interleave":
        return "output_size" not in kwargs or kwargs["output_size"] is None
    if name in COPIES and not kwargs.get("non_blocking", False):
        results = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        return len({tensor.device for tensor in (*tensors, *results)}) > 1
    return False


def _line() -> str:
    """The innermost line of the library on the stack, as "loop.py:12"."""
    frame = sys._getframe()
    while not frame.f_code.co_filename.startswith(LIBRARY):
        if frame.f_back is None:
            return "elsewhere"
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
