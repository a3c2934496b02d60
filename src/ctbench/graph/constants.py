"""Constants that a forward computes: functions of constants alone, and tensors that depend on a shape alone.

F.normalize(self.weight)      torch computes it; of a parameter it is computed again whenever the graph is frozen
torch.zeros_like(x)           the zeros of one sample, [1, *shape]
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ctbench.graph.builder import BatchSize, Builder, Constant, Masked, Turned, Value
from ctbench.graph.exactness import parts
from ctbench.graph.functions import MOVES, READINGS, Reading, moves, plain, reads
from ctbench.graph.ops import UnsupportedLayerError

# functions that have readings of their own for constants, which copy no parameter
_READ = {"size", "dim", getattr, "to", "type_as", "float", "double"}
_WRITING = {
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ifloordiv, operator.imod, operator.ipow),
    *(operator.iand, operator.ior, operator.ixor, operator.setitem),
}
_RANDOM = {
    *("bernoulli", "multinomial", "normal", "poisson", "rand_like", "randn_like", "randint_like", "rrelu"),
    *("bernoulli_", "normal_", "uniform_", "exponential_", "random_", "cauchy_", "geometric_", "log_normal_"),
    *("alpha_dropout", "feature_alpha_dropout", "feature_dropout", "gumbel_softmax"),
    *("empty_like", "new_empty", "new_empty_strided"),  # whatever the memory holds
}


def name_of(target: Any) -> str:
    """The name of a function, or of a method, which is given by its name."""
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


def is_random(target: Any) -> bool:
    """Whether a function draws random values."""
    return name_of(target) in _RANDOM


def is_in_place(target: Any) -> bool:
    """Whether a function writes into its first argument, e.g. torch.relu_, or x.add_(y); operator.and_ does not."""
    name = name_of(target)
    return name.endswith("_") and not name.endswith("__") and getattr(operator, name, None) is not target


def constants_only(target: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call takes constants, and no value of the network, so that torch can compute it."""
    arguments = list(parts([args, kwargs]))
    if not any(isinstance(each, Constant) for each in arguments):
        return False
    if any(isinstance(each, Value | Turned | Masked | BatchSize) for each in arguments):
        return False
    return target not in _WRITING and not is_in_place(target) and target not in MOVES and target not in _READ


def computed(
    build: Builder, path: str, name: str, is_method: bool, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What torch computes from constants, as constants."""
    if is_random(target):
        raise UnsupportedLayerError(random_values(path, name))
    names = ", ".join(each.name for each in parts([args, kwargs]) if isinstance(each, Constant))
    build.computes_constants = True

    def called() -> tuple[Any, Any, Any]:
        """The result, and the arguments as torch gets them: copies, into which the function must not write."""
        copies = list[Tensor]()
        own_args, own_kwargs = (plain(each, 1, copies) for each in (args, kwargs))
        function = getattr(own_args[0], target) if is_method else target
        result = function(*own_args[1 if is_method else 0 :], **own_kwargs)
        if any(copy._version for copy in copies):
            raise UnsupportedLayerError(f"'{path}' ({name}) writes into {names}: compute it before the forward")
        return result, own_args, own_kwargs

    try:
        (first, own_args, own_kwargs), (second, _, _) = called(), called()
    except UnsupportedLayerError:
        raise
    except Exception as error:  # whatever torch raises for these arguments
        raise UnsupportedLayerError(f"'{path}': torch cannot compute {name} of {names} ({error})") from None
    pairs = zip(parts(first), parts(second), strict=True)
    if any(isinstance(a, Tensor) and not torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
        raise UnsupportedLayerError(random_values(path, name))
    build.note_rounding(path, target, own_args, own_kwargs, first)
    return _constants(first, f"{name} of {names}")


def random_values(path: str, name: str) -> str:
    return (
        f"'{path}' ({name}) draws random values, and what is random cannot be certified: leave it out in eval mode "
        f"(if self.training: ...), or draw the values once and store them as a buffer"
    )


def _constants(result: Any, name: str) -> Any:
    """The same with constants in the place of tensors."""
    if isinstance(result, Tensor):
        return Constant(result, name)
    if isinstance(result, tuple | list) and not isinstance(result, torch.Size):
        return type(result)([_constants(each, name) for each in result])
    return result


# ---------------------------------------------------------------------------------- tensors that depend on a shape


def _shaped(make: Callable[..., Tensor]) -> Callable[..., Constant]:
    """A reading of a function of a tensor of which it uses the shape, precision and device alone."""

    def reading(build: Builder, path: str, x: Any, *args: Any, **kwargs: Any) -> Constant:
        if isinstance(x, Turned):
            shape = (*x.value.shape[: x.axis], 1, *x.value.shape[x.axis :])
        else:
            shape = (1, *(x.value.shape if isinstance(x, Masked) else x.shape))
        kwargs = {name: each for name, each in kwargs.items() if name not in ("device", "memory_format")}
        like = build.like.new_zeros(()).expand(shape)
        return Constant(make(like, *plain(args, 1), **plain(kwargs, 1)), f"the result of '{path}'")

    return reading


for _name in ("zeros_like", "ones_like", "full_like"):
    reads(getattr(torch, _name))(_shaped(getattr(torch, _name)))
for _name in ("new_zeros", "new_ones", "new_full", "new_tensor"):
    reads(_name)(_shaped(getattr(Tensor, _name)))


# ----------------------------------------------------------------------------------------- entries at given places


def _gathered(tensor: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """torch.gather, where the places are those of one sample."""
    places = index.to(tensor.device)
    return tensor.gather(dim, places.expand(len(tensor), *places.shape[1:]) if len(places) == 1 else places)


def _taken_along(tensor: Tensor, indices: Tensor, dim: int) -> Tensor:
    return torch.take_along_dim(tensor, indices.to(tensor.device), dim)


def _at_constant_places(reading: Reading) -> Reading:
    def checked(build: Builder, path: str, x: Any, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(each, Value | Turned) for each in parts([args, kwargs])):
            raise UnsupportedLayerError(
                f"'{path}' takes entries at places that depend on the input: give a constant, e.g. a buffer"
            )
        return reading(build, path, x, *args, **kwargs)

    return checked


moves(torch.gather, "gather", function=_gathered, copies=True)
moves(torch.take_along_dim, "take_along_dim", function=_taken_along, copies=True)
for _target in (torch.gather, "gather", torch.take_along_dim, "take_along_dim"):
    READINGS[_target] = _at_constant_places(READINGS[_target])
