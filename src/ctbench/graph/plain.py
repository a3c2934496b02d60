"""What a trace does not see, and rejects: hooks, computed weights, wrong numbers; and wrappers around a network."""

from __future__ import annotations

from itertools import chain
from typing import cast

import torch
from torch import nn
from torch.nn.utils import parametrize

from ctbench.graph.ops import UnsupportedLayerError

FINE = (torch.float32, torch.float64)  # the precisions of networks


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside `DataParallel`, `DistributedDataParallel` and `torch.compile`, which compute the same."""
    while (inner := _wrapped(model)) is not None:
        model = inner
    return model


def plain_network(model: nn.Module) -> nn.Module:
    """The same. Raises UnsupportedLayerError if a wrapper has hooks, so that it may compute something else."""
    while (inner := _wrapped(model)) is not None:
        _check_hooks(model, type(model).__name__, has_own_forward=_is_compiled(model))
        model = inner
    return model


def _wrapped(model: nn.Module) -> nn.Module | None:
    """The module that a wrapper of torch hands its inputs to; None for any other module.

    A subclass of a wrapper, or another module with a submodule of that name, may compute something else.
    """
    if type(model) in (nn.DataParallel, nn.parallel.DistributedDataParallel):
        return cast("nn.Module", model.module)
    return cast("nn.Module", model._orig_mod) if _is_compiled(model) else None


def _is_compiled(model: nn.Module) -> bool:
    """Whether a module is what `torch.compile` made; told by its name, because the import takes seconds."""
    kind = type(model)
    return (kind.__module__, kind.__qualname__) == ("torch._dynamo.eval_frame", "OptimizedModule")


def check_plain(model: nn.Module) -> None:
    """Reject code that a trace does not see, because it is not in the forward of a class, and too low a precision."""
    for path, module in model.named_modules():
        where = f"layer '{path}' ({type(module).__name__})" if path else type(module).__name__
        _check_hooks(module, where)
        if parametrize.is_parametrized(module):
            raise UnsupportedLayerError(
                f"{where} computes its weights: fix them with torch.nn.utils.parametrize.remove_parametrizations"
            )
    precisions = {tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()}
    if len(precisions) > 1:
        raise ValueError(
            f"the parameters of the network are {', '.join(sorted(map(str, precisions)))}, but a graph has one "
            f"precision: use model.float() or model.double()"
        )
    own = own_tensor(model)
    for name, tensor in model.named_buffers():
        if tensor is own and tensor.dtype not in FINE:
            raise ValueError(f"buffer '{name}' is {tensor.dtype}, too coarse for bounds: use model.float()")
    for name, tensor in model.named_parameters():
        if tensor.is_floating_point() and tensor.dtype not in FINE:
            raise ValueError(f"parameter '{name}' is {tensor.dtype}, too coarse for bounds: use model.float()")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"parameter '{name}' holds NaN or infinite values")
    _check_statistics(model)


def _check_statistics(model: nn.Module) -> None:
    """Raise ValueError if the running statistics of a batch norm are NaN or infinite, or a variance is negative."""
    for path, module in model.named_modules():
        if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            continue
        for name, least in (("running_mean", -torch.inf), ("running_var", 0.0)):
            statistic = getattr(module, name)
            if statistic is not None and not bool((statistic.isfinite() & (statistic >= least)).all()):
                place = f"{path}.{name}" if path else name
                values = "NaN or infinite" if least else "NaN, infinite or negative"
                raise ValueError(f"buffer '{place}' holds {values} values: restore the weights of this layer")


def _check_hooks(module: nn.Module, where: str, *, has_own_forward: bool = False) -> None:
    """Raise UnsupportedLayerError if a module runs more than the forward of its class.

    `has_own_forward` says that a forward on the instance belongs to the module.
    """
    if module._forward_hooks or module._forward_pre_hooks or ("forward" in vars(module) and not has_own_forward):
        raise UnsupportedLayerError(
            f"{where} has forward hooks or a forward set on the instance, which bounds do not take into account: "
            f"remove them (torch.nn.utils.prune.remove, torch.nn.utils.remove_weight_norm, handle.remove())"
        )


def own_tensor(model: nn.Module) -> torch.Tensor | None:
    """The tensor that determines the precision of a network, if there is one."""
    attributes = (value for module in model.modules() for value in vars(module).values())
    tensors = chain(model.parameters(), model.buffers(), (t for t in attributes if isinstance(t, torch.Tensor)))
    return next((tensor for tensor in tensors if tensor.is_floating_point()), None)
