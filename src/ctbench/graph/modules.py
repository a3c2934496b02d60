"""Readings of torch modules that are more than a chain of ops: norms, attention, transformers, recurrent networks.

    @reads_module(nn.LayerNorm)
    def _(build, path, module, x): ...

A reading gets the arguments of the call, and returns what the module returns. A recurrent network is unrolled for the
length of its input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ctbench.graph import compositions as compose
from ctbench.graph.builder import Builder, Constant, Turned, Value
from ctbench.graph.functions import READINGS, described
from ctbench.graph.nonlinear import group_norm, layer_norm, mask, rms_norm
from ctbench.graph.ops import Concat, UnsupportedLayerError

ModuleReading = Callable[..., Any]
MODULES: dict[type[nn.Module], ModuleReading] = {}


def reads_module(*kinds: type[nn.Module]) -> Callable[[ModuleReading], ModuleReading]:
    """Register a reading of modules of these types."""

    def register(reading: ModuleReading) -> ModuleReading:
        MODULES.update(dict.fromkeys(kinds, reading))
        return reading

    return register


def reading_of(module: nn.Module) -> ModuleReading | None:
    """The reading of a module. A subclass may compute something else, and has none."""
    return MODULES.get(type(module))


def called(build: Builder, path: str, module: nn.Module, x: Value) -> Value:
    """The output of a module of any kind that has one input and one output."""
    reading = reading_of(module)
    result: Value = build.layer(path, module, x) if reading is None else reading(build, path, module, x)
    return result


# ------------------------------------------------------------------------------------------------ normalisation


@reads_module(nn.Softmax)
def _softmax(build: Builder, path: str, module: nn.Softmax, x: Value) -> Value:
    return READINGS[torch.softmax](build, path, x, module.dim)  # type: ignore[no-any-return]


@reads_module(nn.Softmin)
def _softmin(build: Builder, path: str, module: nn.Softmin, x: Value) -> Value:
    return READINGS[nn.functional.softmin](build, path, x, module.dim)  # type: ignore[no-any-return]


@reads_module(nn.Threshold)
def _threshold(build: Builder, path: str, module: nn.Threshold, x: Value) -> Value:
    settings = (module.threshold, module.value, module.inplace)
    return READINGS[nn.functional.threshold](build, path, x, *settings)  # type: ignore[no-any-return]


@reads_module(nn.LogSoftmax)
def _log_softmax(build: Builder, path: str, module: nn.LogSoftmax, x: Value) -> Value:
    return READINGS[torch.log_softmax](build, path, x, module.dim)  # type: ignore[no-any-return]


@reads_module(nn.LayerNorm)
def _layer_norm(build: Builder, path: str, module: nn.LayerNorm, x: Value) -> Value:
    return layer_norm(build, path, x, tuple(module.normalized_shape), module.weight, module.bias, module.eps)


@reads_module(nn.GroupNorm)
def _group_norm(build: Builder, path: str, module: nn.GroupNorm, x: Value) -> Value:
    return group_norm(build, path, x, module.num_groups, module.weight, module.bias, module.eps)


@reads_module(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
def _instance_norm(build: Builder, path: str, module: Any, x: Value) -> Value:
    if module.track_running_stats:
        raise UnsupportedLayerError(
            f"layer '{path}' ({type(module).__name__}) normalises by running statistics: use a batch norm with its "
            f"state, which computes the same in eval mode"
        )
    return group_norm(build, path, x, x.shape[0], module.weight, module.bias, module.eps)


if hasattr(nn, "RMSNorm"):

    @reads_module(nn.RMSNorm)
    def _rms_norm(build: Builder, path: str, module: Any, x: Value) -> Value:
        eps = module.eps
        if eps is None and not build.open:  # a network without tensors has the precision of its inputs
            eps = torch.finfo(build.like.dtype).eps
        return rms_norm(build, path, x, tuple(module.normalized_shape), module.weight, eps)


@reads_module(nn.GLU)
def _glu(build: Builder, path: str, module: nn.GLU, x: Value) -> Value:
    return READINGS[nn.functional.glu](build, path, x, module.dim)  # type: ignore[no-any-return]


@reads_module(nn.CosineSimilarity)
def _cosine(build: Builder, path: str, module: nn.CosineSimilarity, first: Any, second: Any) -> Value:
    return READINGS[nn.functional.cosine_similarity](build, path, first, second, module.dim, module.eps)  # type: ignore[no-any-return]


@reads_module(nn.PairwiseDistance)
def _distance(build: Builder, path: str, module: nn.PairwiseDistance, first: Any, second: Any) -> Value:
    settings = (module.norm, module.eps, module.keepdim)
    return READINGS[nn.functional.pairwise_distance](build, path, first, second, *settings)  # type: ignore[no-any-return]


@reads_module(nn.LocalResponseNorm)
def _local_response_norm(build: Builder, path: str, module: nn.LocalResponseNorm, x: Value) -> Value:
    settings = (module.size, module.alpha, module.beta, module.k)
    return READINGS[nn.functional.local_response_norm](build, path, x, *settings)  # type: ignore[no-any-return]


# ------------------------------------------------------------------------------------- attention and transformers


def _batch_first(path: str, module: Any, x: Any) -> Value:
    """What a layer takes, with the batch as dimension 0; without batch_first, a layer takes it as dimension 1."""
    if module.batch_first:
        if not isinstance(x, Value):
            raise UnsupportedLayerError(
                f"layer '{path}' ({type(module).__name__}) takes {described(x)}: with batch_first=True, give values of "
                f"the network with the batch as dimension 0"
            )
        return x
    if not isinstance(x, Turned) or x.axis != 1:
        raise UnsupportedLayerError(
            f"layer '{path}' ({type(module).__name__}) has batch_first=False, so it takes the samples of a batch as a "
            f"sequence: set batch_first=True, or give it x.transpose(0, 1), and transpose its output back"
        )
    return x.value


def _turned(module: Any, x: Value) -> Value | Turned:
    """What a layer returns: without batch_first, the batch is dimension 1."""
    return x if module.batch_first else Turned(x, 1)


@reads_module(nn.MultiheadAttention)
def _multihead(
    build: Builder,
    path: str,
    module: nn.MultiheadAttention,
    query: Any,
    key: Any,
    value: Any,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Value | Turned, Value | None]:
    weights = module.in_proj_weight
    if module.bias_k is not None or module.add_zero_attn or weights is None:
        raise UnsupportedLayerError(
            f"layer '{path}' (MultiheadAttention) must have equal kdim and vdim, and neither add_bias_kv nor "
            f"add_zero_attn"
        )
    query, key, value = (_batch_first(path, module, x) for x in (query, key, value))
    if key_padding_mask is not None:
        raise UnsupportedLayerError(f"layer '{path}' (MultiheadAttention) has a key_padding_mask: give attn_mask")
    size, biases = module.embed_dim, module.in_proj_bias

    def projected(x: Value, place: int) -> Value:
        part = slice(place * size, (place + 1) * size)
        rows = compose.times_matrix(build, path, x, weights[part], None if biases is None else biases[part])
        return compose.heads(build, path, rows, module.num_heads)

    queries, keys, values = (projected(x, place) for place, x in enumerate((query, key, value)))
    if attn_mask is not None and hasattr(attn_mask, "tensor") and attn_mask.tensor.dtype == torch.bool:
        attn_mask = ~attn_mask.tensor  # torch's layer marks the keys that are not seen, and its function those that are
    seen = mask(path, attn_mask, is_causal and attn_mask is None, query.shape[0], key.shape[0], build.like)
    scale = 1 / math.sqrt(size // module.num_heads)
    mixed, shares = compose.attention(build, path, queries, keys, values, scale, seen)
    output = module.out_proj
    merged = compose.merged_heads(build, path, mixed)
    result = _turned(module, compose.times_matrix(build, path, merged, output.weight, output.bias))
    if not need_weights:
        return result, None
    if average_attn_weights:
        shares = compose.squeezed(build, path, compose.mean(build, path, shares, [0]), 0)
    return result, shares


@reads_module(nn.TransformerEncoderLayer)
def _encoder_layer(
    build: Builder,
    path: str,
    module: nn.TransformerEncoderLayer,
    x: Any,
    src_mask: Any = None,
    src_key_padding_mask: Any = None,
    is_causal: bool = False,
) -> Value | Turned:
    if src_key_padding_mask is not None:
        raise UnsupportedLayerError(f"layer '{path}' (TransformerEncoderLayer) has a padding mask: give src_mask")

    attention: Any = module.self_attn
    x = _batch_first(path, attention, x)

    def attended(x: Value) -> Value:
        options = {"need_weights": False, "attn_mask": src_mask, "is_causal": is_causal}
        rows = _turned(attention, x)
        result = _multihead(build, f"{path}.self_attn", attention, rows, rows, rows, **options)[0]
        return _batch_first(path, attention, result)

    def fed_forward(x: Value) -> Value:
        hidden = called(build, f"{path}.linear1", module.linear1, x)
        hidden = READINGS[module.activation](build, f"{path}.activation", hidden)
        return called(build, f"{path}.linear2", module.linear2, hidden)

    for name, part in (("norm1", attended), ("norm2", fed_forward)):
        norm = getattr(module, name)
        if module.norm_first:
            x = compose.added(build, path, x, part(called(build, f"{path}.{name}", norm, x)))
        else:
            x = called(build, f"{path}.{name}", norm, compose.added(build, path, x, part(x)))
    return _turned(attention, x)


@reads_module(nn.TransformerEncoder)
def _encoder(
    build: Builder, path: str, module: nn.TransformerEncoder, x: Any, mask: Any = None, *args: Any, **options: Any
) -> Value | Turned:
    layers: Any = module.layers
    for place, layer in enumerate(layers):
        x = _encoder_layer(build, f"{path}.layers.{place}", layer, x, mask, *args, **options)
    if module.norm is None:
        return x  # type: ignore[no-any-return]
    attention = layers[-1].self_attn
    return _turned(attention, called(build, f"{path}.norm", module.norm, _batch_first(path, attention, x)))


# ------------------------------------------------------------------------------------------------- recurrent networks

Gates = tuple[Tensor, Tensor, Tensor | None, Tensor | None]  # weights of the input, of the state, and their biases


def _state(build: Builder, path: str, size: int, given: Any, x: Value) -> Value:
    """A state of a cell: zeros if none is given, and a constant, of one sample, as a value."""
    if isinstance(given, Constant):
        if tuple(given.tensor.shape) not in ((1, size), (size,)):
            raise UnsupportedLayerError(
                f"'{path}' starts from {given.name} of shape {list(given.tensor.shape)}: give the state of one sample, "
                f"[1, {size}]"
            )
        return compose.given(build, path, given.tensor.reshape(size).to(build.like), x)
    return _zeros(build, path, size, x) if given is None else given


def _zeros(build: Builder, path: str, size: int, like: Value) -> Value:
    return compose.given(build, path, torch.zeros(size, dtype=build.like.dtype, device=build.like.device), like)


def _parts(build: Builder, path: str, x: Value, count: int) -> list[Value]:
    size = x.shape[-1] // count
    return [compose.taken(build, path, x, len(x.shape) - 1, slice(n * size, (n + 1) * size)) for n in range(count)]


def _activated(build: Builder, path: str, kind: type[nn.Module], x: Value) -> Value:
    return build.layer(path, kind(), x)


def _rnn_step(build: Builder, path: str, gates: Gates, x: Value, state: Value, kind: type[nn.Module]) -> Value:
    """f(W x + b + U h + c)."""
    w, u, b, c = gates
    total = compose.added(
        build, path, compose.times_matrix(build, path, x, w, b), compose.times_matrix(build, path, state, u, c)
    )
    return _activated(build, path, kind, total)


def _gru_step(build: Builder, path: str, gates: Gates, x: Value, state: Value) -> Value:
    """h' = n + z (h - n), with n = tanh(W_n x + r (U_n h)), and the gates r and z."""
    w, u, b, c = gates
    mine = _parts(build, path, compose.times_matrix(build, path, x, w, b), 3)
    theirs = _parts(build, path, compose.times_matrix(build, path, state, u, c), 3)
    reset, update = (
        _activated(build, path, nn.Sigmoid, compose.added(build, path, mine[n], theirs[n])) for n in range(2)
    )
    gated = compose.product(build, path, reset, theirs[2])
    new = _activated(build, path, nn.Tanh, compose.added(build, path, mine[2], gated))
    change = compose.added(build, path, state, compose.scaled(build, path, new, -1.0))
    return compose.added(build, path, new, compose.product(build, path, update, change))


def _lstm_step(build: Builder, path: str, gates: Gates, x: Value, state: Value, cell: Value) -> tuple[Value, Value]:
    """c' = f c + i g and h' = o tanh(c'), with gates i, f and o."""
    w, u, b, c = gates
    total = compose.added(
        build, path, compose.times_matrix(build, path, x, w, b), compose.times_matrix(build, path, state, u, c)
    )
    kinds = (nn.Sigmoid, nn.Sigmoid, nn.Tanh, nn.Sigmoid)
    take, forget, new, show = (
        _activated(build, path, kind, part) for kind, part in zip(kinds, _parts(build, path, total, 4), strict=True)
    )
    cell = compose.added(
        build, path, compose.product(build, path, forget, cell), compose.product(build, path, take, new)
    )
    return compose.product(build, path, show, _activated(build, path, nn.Tanh, cell)), cell


def _gates(module: Any, suffix: str = "") -> Gates:
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w, u, b, c = (getattr(module, f"{name}{suffix}", None) for name in names)
    assert w is not None
    assert u is not None
    return w, u, b, c


_KINDS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


@reads_module(nn.RNNCell)
def _rnn_cell(build: Builder, path: str, module: nn.RNNCell, x: Value, hx: Any = None) -> Value:
    state = _state(build, path, module.hidden_size, hx, x)
    return _rnn_step(build, path, _gates(module), x, state, _KINDS[module.nonlinearity])


@reads_module(nn.GRUCell)
def _gru_cell(build: Builder, path: str, module: nn.GRUCell, x: Value, hx: Any = None) -> Value:
    state = _state(build, path, module.hidden_size, hx, x)
    return _gru_step(build, path, _gates(module), x, state)


@reads_module(nn.LSTMCell)
def _lstm_cell(build: Builder, path: str, module: nn.LSTMCell, x: Value, hx: Any = None) -> tuple[Value, Value]:
    states = [_state(build, path, module.hidden_size, each, x) for each in ((None, None) if hx is None else hx)]
    return _lstm_step(build, path, _gates(module), x, *states)


def _are_zeros(state: Any) -> bool:
    """Whether the first states of a layer are those that it has by default."""
    states = state if isinstance(state, tuple | list) else [state]
    return all(
        each is None or (isinstance(each, Constant) and not each.tensor.requires_grad and not bool(each.tensor.any()))
        for each in states
    )


@reads_module(nn.RNN, nn.GRU, nn.LSTM)
def _recurrent(build: Builder, path: str, module: Any, x: Any, hx: Any = None) -> tuple[Value | Turned, Any]:
    """The states of the last layer for all steps, [steps, features]; the last states of all layers, as a tuple."""
    x, where = _batch_first(path, module, x), f"layer '{path}' ({type(module).__name__})"
    if getattr(module, "proj_size", False):
        raise UnsupportedLayerError(f"{where} has proj_size={module.proj_size}: set it to 0, and add a linear layer")
    if len(x.shape) != 2:
        raise UnsupportedLayerError(f"{where} takes values [batch, steps, features], a sample here has shape {x.shape}")
    if not _are_zeros(hx):
        raise UnsupportedLayerError(f"{where} must begin with states of 0, which it does if it is called without any")
    steps, lasts, cells = x.shape[0], list[Value](), list[Value]()
    directions = ("", "_reverse") if module.bidirectional else ("",)
    for layer in range(module.num_layers):
        sides = list[list[Value]]()
        for direction in directions:
            gates, states = _gates(module, f"_l{layer}{direction}"), list[Value]()
            state = cell = _zeros(build, path, module.hidden_size, x)
            order = list(range(steps))[:: -1 if direction else 1]
            for step in order:
                entry = compose.taken(build, path, x, 0, step)
                if isinstance(module, nn.LSTM):
                    state, cell = _lstm_step(build, path, gates, entry, state, cell)
                elif isinstance(module, nn.GRU):
                    state = _gru_step(build, path, gates, entry, state)
                else:
                    state = _rnn_step(build, path, gates, entry, state, _KINDS[module.nonlinearity])
                states.append(state)
            lasts.append(state)
            cells.append(cell)
            sides.append(states[:: -1 if direction else 1])
        rows = [_joined(build, path, [side[step] for side in sides], 0) for step in range(steps)]
        x = _stacked(build, path, rows)
    ends: Any = (tuple(lasts), tuple(cells)) if isinstance(module, nn.LSTM) else tuple(lasts)
    return _turned(module, x), ends


def _joined(build: Builder, path: str, values: list[Value], dim: int) -> Value:
    if len(values) == 1:
        return values[0]
    return build.append(path, Concat(dim, tuple(value.shape[dim] for value in values)), *values)


def _stacked(build: Builder, path: str, values: list[Value]) -> Value:
    return _joined(build, path, [compose.unsqueezed(build, path, value, 0) for value in values], 0)
