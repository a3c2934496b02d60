"""A simulated accelerator: the device "sim" computes on the CPU, and mixes with CPU tensors only where CUDA does.

    from tests import simulated_device       # registers the device, for the whole process

    model.to("sim")(x.to("sim"))             # values are the CPU's, and so are gradients, except for rounding
    with simulated_device.counted() as counts:
        step()
    counts.launches, counts.waits            # what a real device would start, and what would wait for it
    with simulated_device.memory_limit(2**24):
        step()                               # torch.OutOfMemoryError where live tensors take more

A tensor on "sim" has a storage without bytes, which holds on to a tensor on the CPU. Every operator is unpacked,
checked for tensors in wrong places, run on the CPU and packed again. The device has no streams and no second number
("sim:1"), all its tensors look contiguous (so autograd may choose another order of a product), and it needs torch
2.13's hooks for backends that are written in Python.
"""

from __future__ import annotations

import functools
import gc
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration

NAME = "sim"
CPU = torch.device("cpu")

# CUDA lets the indices of these lie on the CPU
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
# these read one device and write another
COPIES = {"aten::_copy_from", "aten::_copy_from_and_resize", "aten::copy_", "aten::_to_copy"}
# the host reads a value or the size of the result, so it waits for all that was launched before
READS = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::bincount",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave",
}
# these make another view of a tensor, and launch nothing
VIEWS = (
    "_reshape_alias",
    "_unsafe_view",
    "as_strided",
    "diagonal",
    "expand",
    "permute",
    "select.int",
    "slice.Tensor",
    "split.Tensor",
    "split_with_sizes",
    "squeeze",
    "squeeze.dim",
    "squeeze.dims",
    "t",
    "transpose.int",
    "unbind.int",
    "unfold",
    "unsqueeze",
    "view",
    "view.dtype",
    "view_as_real",
)
FREE = {f"aten::{name.partition('.')[0]}" for name in VIEWS} | {"aten::detach", "aten::alias", "aten::empty"}
FREE |= {"aten::empty_strided", "aten::empty_like", "aten::new_empty", "aten::lift_fresh"}


@dataclass
class Counts:
    """The counts of the operators that ran on the device."""

    operators: Counter[str] = field(default_factory=Counter)  # launches, by operator
    waits: int = 0  # of the host for the device: values that it reads, and sizes that depend on values
    waits_by_operator: Counter[str] = field(default_factory=Counter)
    uploads: int = 0  # copies to the device
    downloads: int = 0  # copies from the device; each is also a wait
    uploaded_bytes: int = 0
    downloaded_bytes: int = 0

    @property
    def launches(self) -> int:
        """Operators that compute something on the device; views and copies from and to it are none."""
        return self.operators.total()


class _Memory:
    """The bytes of all live tensors of the device. Views share the bytes of their base."""

    def __init__(self) -> None:
        self.bytes, self.peak, self.limit = 0, 0, math.inf
        self.holders: Counter[int] = Counter()  # by the address of the CPU's storage

    def hold(self, raw: Tensor) -> int:
        storage = raw.untyped_storage()
        address = storage.data_ptr()
        if not self.holders[address]:
            if self.bytes + storage.nbytes() > self.limit:
                gc.collect()
            if self.bytes + storage.nbytes() > self.limit:
                del self.holders[address]
                raise torch.OutOfMemoryError(
                    f"{NAME} out of memory: {storage.nbytes()} more bytes, of {self.limit}, {self.bytes} are taken"
                )
            self.bytes += storage.nbytes()
            self.peak = max(self.peak, self.bytes)
        self.holders[address] += 1
        return address

    def release(self, address: int, size: int) -> None:
        self.holders[address] -= 1
        if not self.holders[address]:
            del self.holders[address]
            self.bytes -= size


class _Held:
    """What a storage of the device holds: a tensor on the CPU."""

    def __init__(self, raw: Tensor) -> None:
        self.raw, self.size = raw, raw.untyped_storage().nbytes()
        self.address = -1
        self.address = _memory.hold(raw)

    def __del__(self) -> None:
        if self.address != -1:
            _memory.release(self.address, self.size)


_memory = _Memory()
_counting: list[Counts] = []


@contextmanager
def counted() -> Iterator[Counts]:
    """Count what runs on the device."""
    counts = Counts()
    _counting.append(counts)
    try:
        yield counts
    finally:
        _counting.remove(counts)


@contextmanager
def memory_limit(size: float) -> Iterator[None]:
    """Raise torch.OutOfMemoryError if all live tensors of the device take more than this number of bytes."""
    before, _memory.limit = _memory.limit, size
    try:
        yield
    finally:
        _memory.limit = before


@contextmanager
def measured_memory() -> Iterator[Callable[[], int]]:
    """A function that returns the peak bytes of live tensors since the start, minus those at the start."""
    gc.collect()
    begin = _memory.bytes
    _memory.peak = begin
    yield lambda: _memory.peak - begin


def used() -> int:
    """The bytes that live tensors take."""
    gc.collect()
    return _memory.bytes


def there(value: object) -> bool:
    """Whether a value is a tensor on the device."""
    return isinstance(value, Tensor) and not (value.is_cpu or value.is_meta)


def packed(raw: Tensor) -> Tensor:
    """A tensor on the device that holds a tensor on the CPU."""
    out = torch._C._acc.create_empty_tensor(tuple(raw.shape), raw.dtype)
    out.untyped_storage().held = _Held(raw)
    return out


def unpacked(tensor: Tensor) -> Tensor:
    """The tensor on the CPU that a tensor on the device holds."""
    raw = tensor.untyped_storage().held.raw
    if raw.numel() != tensor.numel():
        raise AssertionError(f"the simulation has lost track: {list(tensor.shape)} is {list(raw.shape)}")
    return raw if raw.shape == tensor.shape else raw.reshape(tensor.shape)


@dataclass(frozen=True)
class _Operator:
    """The properties of an operator, from its schema."""

    name: str
    tensors: tuple[int, ...]  # the places of arguments that are tensors
    written: tuple[tuple[int, str], ...]  # the places and names of arguments that it writes into
    returned: int  # how many of these it returns, if it returns nothing else; else -1

    @classmethod
    @functools.cache
    def of(cls, op: Any) -> _Operator:
        schema = op._schema
        arguments, returns = schema.arguments, schema.returns
        written = tuple((at, a.name) for at, a in enumerate(arguments) if a.alias_info and a.alias_info.is_write)
        alone = bool(written) and all(r.alias_info and r.alias_info.is_write for r in returns)
        tensors = tuple(at for at, a in enumerate(arguments) if str(a.type) == "Tensor")
        return cls(schema.name, tensors, written, len(returns) if alone else -1)


class _Unpacking:
    """The arguments of a call with the tensors that the CPU computes with, and which tensors there were."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.strange_generator = False

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            self.tensors.append(value)
            return value if value.is_cpu else unpacked(value)
        if isinstance(value, list | tuple):
            return value if value and isinstance(value[0], int) else [self(each) for each in value]
        if isinstance(value, torch.device):
            return CPU
        if isinstance(value, _CPUGenerator):
            self.strange_generator |= value._cdata not in _generators
        return value


def _packed(value: Any) -> Any:
    """All tensors of a result on the device."""
    if isinstance(value, Tensor):
        return packed(value)
    if isinstance(value, list | tuple):
        return type(value)(_packed(each) for each in value)
    return value


def _note(name: str, tensors: list[Tensor]) -> None:
    """Count an operator."""
    if name in FREE:
        return
    crossing = name in COPIES and there(tensors[0]) != there(tensors[-1])
    size = tensors[0].numel() * tensors[0].element_size() if crossing else 0
    # indexing by a mask counts itself: torch looks for its places by `nonzero` first; writing there does not
    written = name in INDEXING and name not in ("aten::index", "aten::_unsafe_index")
    selects = written and tensors[1].dtype in (torch.bool, torch.uint8) and tensors[-1].numel() > 1
    waits = name in READS or selects or (crossing and there(tensors[0]))
    for counts in _counting:
        if waits:
            counts.waits += 1
            counts.waits_by_operator[name] += 1
        if crossing and there(tensors[0]):
            counts.downloads, counts.downloaded_bytes = counts.downloads + 1, counts.downloaded_bytes + size
        elif crossing:
            counts.uploads, counts.uploaded_bytes = counts.uploads + 1, counts.uploaded_bytes + size
        elif name != "aten::_local_scalar_dense":
            counts.operators[name] += 1


def _check(name: str, given: _Unpacking) -> None:
    """Raise the errors of CUDA for tensors or generators on another device."""
    if given.strange_generator:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' in {name}")
    if name in COPIES or not any(t.is_cpu for t in given.tensors):
        return
    tensors = given.tensors
    if name in INDEXING:
        looked_at = tensors[:1] if name in ("aten::index", "aten::_unsafe_index") else [tensors[0], tensors[-1]]
    else:
        looked_at = tensors
    if any(t.dim() > 0 and t.is_cpu for t in looked_at) and any(map(there, tensors)):
        places = ", ".join(f"{t.device} {list(t.shape)}" for t in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device, but got {places} in {name}")


def _run(op: Any, *arguments: Any, **options: Any) -> Any:
    """One operator of the device."""
    operator, unpack = _Operator.of(op), _Unpacking()
    name = operator.name
    values = [unpack(value) for value in arguments]
    named = {key: unpack(value) for key, value in options.items()}
    _check(name, unpack)
    if _counting:
        _note(name, unpack.tensors)
    if name in ("aten::_copy_from", "aten::_copy_from_and_resize"):
        values[1].copy_(values[0])
        return arguments[1]
    if name == "aten::as_strided" and not (values[0].is_contiguous() and values[0].storage_offset() == 0):
        values[0] = values[0].clone(memory_format=torch.contiguous_format)  # as the device sees it; only to be read
    if name == "aten::view" and not isinstance(values[1], torch.dtype):
        out = values[0].reshape(values[1])  # here all tensors look contiguous
    else:
        # torch unpacks tensors that were made of numbers: then another operator of this name is meant
        numbers = any(at < len(values) and isinstance(values[at], bool | int | float) for at in operator.tensors)
        if name == "aten::sub" and not isinstance(values[0], Tensor) and "out" in named:
            # there is none for a number minus a tensor, and torch would print the tensor to say so
            values[0], numbers = torch.scalar_tensor(values[0], dtype=named["out"].dtype), False
        out = (op.overloadpacket if numbers else op)(*values, **named)
    if operator.returned == -1:
        return _packed(out)
    pairs = [
        (arguments[at], values[at]) if at < len(arguments) else (options.get(key), named.get(key))
        for at, key in operator.written
    ]
    outputs = [output for output, _ in pairs if output is not None]
    for output, raw in pairs:
        if there(output) and raw.shape != output.shape:  # it was resized
            output.data = packed(raw)
    return (None, outputs[0] if outputs else None)[operator.returned] if operator.returned < 2 else tuple(outputs)


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
    return _run(torch.ops.aten.convolution.default, x, weight, bias, *rest)  # type: ignore[no-any-return]


def _convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    mask: list[bool],
) -> Any:
    bias = [weight.shape[1] * groups if transposed else weight.shape[0]]
    rest = (bias, stride, padding, dilation, transposed, output_padding, groups, mask)
    return _run(torch.ops.aten.convolution_backward.default, gradient, x, weight, *rest)


class _Generator(torch.Generator):
    """A generator on the CPU, which may stand for one of the device."""

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        return super().__new__(cls, CPU if torch.device(device).type == NAME else device)

    def __init__(self, device: torch.device | str = "cpu") -> None:
        if torch.device(device).type == NAME:
            _generators.add(self._cdata)

    def clone_state(self) -> _Generator:
        copy = _Generator(NAME if self._cdata in _generators else CPU)
        copy.set_state(self.get_state())
        return copy

    def __del__(self) -> None:
        _generators.discard(self._cdata)


def _copied(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """Tensors of the device as leaves that are copied: torch would copy the storage, which has no bytes."""
    if not there(self):
        return _deepcopy(self, memo)  # type: ignore[no-any-return]
    copy = self.detach().clone().requires_grad_(self.requires_grad)
    copy = torch.nn.Parameter(copy, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copy
    memo[id(self)] = copy
    return copy


_CPUGenerator = torch.Generator
_generators: set[int] = set()  # those that stand for one of the device, by their addresses
_deepcopy = torch.Tensor.__deepcopy__
_every, _named = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")


def _register() -> None:
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    torch.sim.get_amp_supported_dtype = lambda: [torch.bfloat16]
    torch.sim.mem_get_info = lambda device=None: (max(0, _limit() - _memory.bytes), _limit())
    _every.fallback(_run, "PrivateUse1")
    _named.impl("convolution_overrideable", _convolution, "PrivateUse1")
    _named.impl("convolution_backward_overrideable", _convolution_backward, "PrivateUse1")
    for name in VIEWS:
        packet, _, overload = name.partition(".")
        op = getattr(getattr(torch.ops.aten, packet), overload or "default")
        _named.impl(name, functools.partial(_run, op), "PrivateUse1")
    torch.Generator = _Generator
    torch.Tensor.__deepcopy__ = _copied


def _limit() -> int:
    return 2**40 if math.isinf(_memory.limit) else int(_memory.limit)


_register()
