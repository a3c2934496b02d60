"""Functions and methods in a forward: they are read as torch computes them, or refused."""

import math
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench.graph import UnsupportedLayerError, freeze, trace, walk_forward
from ctbench.graph.functions import READINGS
from ctbench.graph.trace import _Tracer

SHAPE = (4, 6, 8)
PARAMETERS = {
    "scale": (4, 1, 1),
    "row": (8,),
    "pair": (2, 6, 8),
    "with_batch": (1, 4, 6, 8),
    "one": (),
    "matrix": (8, 5),
    "weight": (5, 8),
    "bias": (5,),
    "kernel": (2, 4, 3, 3),
    "grouped": (4, 2, 2, 3),
    "shift": (2,),
}


class Reads(nn.Module):
    """A forward as a function of the module and x, for inputs of shape (4, 6, 8), and constants for it."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        for name, shape in PARAMETERS.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape)))
        self.register_buffer("mean", torch.rand(4, 1, 1))
        self.register_buffer("std", torch.rand(4, 1, 1) + 0.5)
        self.register_buffer("count", torch.tensor([3]))
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))
        self.table = nn.ParameterList([nn.Parameter(torch.randn(8))])
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x).flatten(1)


def as_method(name: str, *arguments):
    return lambda m, x: getattr(x, name)(*arguments)


def as_function(name: str, *arguments):
    return lambda m, x: getattr(torch, name)(x, *arguments)


def swapped(parts):
    """The second part of x before the first."""
    return lambda m, x: torch.cat([parts(m, x)[1].flatten(1), parts(m, x)[0].flatten(1)], 1)


# arguments for x of shape [B, 4, 6, 8]
BOTH_WAYS = {
    "flatten": [(1,), (2, 3), (-2,), (1, 2)],
    "reshape": [((-1, 24, 8),), ((-1, 4, 3, 16),)],
    "unflatten": [(1, (2, 2)), (-1, (2, -1))],
    "squeeze": [()],
    "unsqueeze": [(1,), (-1,), (2,)],
    "permute": [((0, 3, 1, 2),), ((0, 1, -1, -2),)],
    "transpose": [(1, 2), (-1, 1)],
    "swapaxes": [(3, 1)],
    "movedim": [(1, 3), ((1, 2), (2, 1)), (-1, 1)],
    "flip": [((2,),), ((-1, 1),)],
    "roll": [(2, 3), ((1, -1), (1, 2))],
    "narrow": [(1, 1, 2), (-1, 3, 4)],
    "select": [(1, 2), (-1, 0)],
    "tile": [((1, 2, 1, 1),), ((2,),)],
    "clone": [()],
}
METHODS = {
    "view": [(-1, 24, 8), (-1, 6, 4, 2, 4)],
    "expand": [(-1, -1, -1, -1), (-1, 4, 6, 8)],
    "repeat": [(1, 2, 1, 3)],
    "contiguous": [()],
    "permute": [(0, 3, 1, 2)],
    "reshape": [(-1, 24, 8)],
    "flip": [(2, 3)],
    "tile": [(1, 2, 1, 1)],
}
PARTS = {"chunk": [(2, 1), (3, -1)], "split": [(3, 2), ([1, 3], 1), (4, -1)], "unbind": [(1,), (-1,)]}

EXAMPLES = {
    # as their layers
    "F.relu": lambda m, x: F.relu(x - 0.5),
    "torch.relu": lambda m, x: torch.relu(x - 0.5),
    "relu": lambda m, x: (x - 0.5).relu(),
    "F.relu6": lambda m, x: F.relu6(12 * x),
    "F.leaky_relu": lambda m, x: F.leaky_relu(x, 0.3),
    "F.leaky_relu of the usual slope": lambda m, x: F.leaky_relu(x),
    "F.hardtanh": lambda m, x: F.hardtanh(x, -0.5, 0.25),
    "torch.sigmoid": lambda m, x: torch.sigmoid(x),
    "sigmoid": lambda m, x: x.sigmoid(),
    "F.sigmoid": lambda m, x: F.sigmoid(x),
    "torch.tanh": lambda m, x: torch.tanh(x),
    "tanh": lambda m, x: x.tanh(),
    "F.tanh": lambda m, x: F.tanh(x),
    "F.gelu": lambda m, x: F.gelu(x),
    "F.silu": lambda m, x: F.silu(x),
    "torch.abs": lambda m, x: torch.abs(x),
    "abs": lambda m, x: x.abs(),
    "abs()": lambda m, x: abs(x),
    "torch.clamp": lambda m, x: torch.clamp(x, -0.5, 0.5),
    "torch.clip": lambda m, x: torch.clip(x, min=-0.5, max=0.5),
    "clamp from below": lambda m, x: x.clamp(min=0.1),
    "clamp from below by place": lambda m, x: x.clamp(0.1),
    "clip from above": lambda m, x: x.clip(max=0.1),
    "F.dropout": lambda m, x: F.dropout(x, 0.5, m.training),
    "F.avg_pool2d": lambda m, x: F.avg_pool2d(x, 3, stride=2, padding=1),
    "F.avg_pool2d of unequal sides": lambda m, x: F.avg_pool2d(x, [2, 3], [1, 2]),
    "F.adaptive_avg_pool2d": lambda m, x: F.adaptive_avg_pool2d(x, 1),
    "F.adaptive_avg_pool2d of uneven parts": lambda m, x: F.adaptive_avg_pool2d(x, [4, 3]),
    "F.adaptive_avg_pool2d that keeps a side": lambda m, x: F.adaptive_avg_pool2d(x, (None, 5)),
    "F.adaptive_avg_pool2d that repeats": lambda m, x: F.adaptive_avg_pool2d(x, (7, 9)),
    "F.max_pool2d": lambda m, x: F.max_pool2d(x, 2),
    "F.max_pool2d that overlaps": lambda m, x: F.max_pool2d(x, 3, 2, 1),
    "F.max_pool2d of every option": lambda m, x: F.max_pool2d(x, (2, 3), (3, 2), (1, 0), (2, 3), True),
    "F.max_pool2d, rounded up": lambda m, x: F.max_pool2d(x, 4, 4, ceil_mode=True),
    # as moves of entries
    **{f"{name}{args}": as_method(name, *args) for name, every in BOTH_WAYS.items() for args in every},
    **{f"torch.{name}{args}": as_function(name, *args) for name, every in BOTH_WAYS.items() for args in every},
    **{f"{name}{args} as a method": as_method(name, *args) for name, every in METHODS.items() for args in every},
    "pad": lambda m, x: F.pad(x, (1, 2)),
    "pad with a number": lambda m, x: F.pad(x, (1, 0, 2, 1, 0, 3), value=-0.5),
    "cut by pad": lambda m, x: F.pad(x, (-1, -2, 1, 0)),
    "pad nothing": lambda m, x: F.pad(x, (0, 0)),
    "pad by reflection": lambda m, x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "pad by replication": lambda m, x: F.pad(x, (1, 2, 3, 0), "replicate"),
    "pad in a circle": lambda m, x: F.pad(x, (1, 2, 3, 0), "circular"),
    "pixel_shuffle": lambda m, x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda m, x: F.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda m, x: F.channel_shuffle(x, 2),
    "expand a channel": lambda m, x: x[:, :1].expand(x.size(0), 3, -1, 8),
    "squeeze dimensions": lambda m, x: x[:, :, 2:3].squeeze(2).unsqueeze(1).squeeze((1,)),
    "view of sizes": lambda m, x: x.view(x.size(0), x.size(1) * x.size(2), -1),
    "view of the shape": lambda m, x: x.view(x.shape[0], x.shape[1] // 2, x.shape[2] + 6, x.shape[-1]),
    "view of a tuple": lambda m, x: x.view((x.size()[0], x.size()[1], -1)),
    "flatten from a number of dimensions": lambda m, x: x.flatten(x.dim() - 2).flatten(x.ndim - 2),
    "slices": lambda m, x: x[:, 1:3, ::2, -3:],
    "a slice of half of a side": lambda m, x: x[..., : x.size(3) // 2],
    "one entry": lambda m, x: x[:, 1, :, 2],
    "a new dimension": lambda m, x: x[:, None, ..., 0],
    "a list of entries": lambda m, x: x[:, [2, 0, 0]],
    "an order of entries": lambda m, x: x[:, m.order],
    # as parts
    **{
        f"{name}{arguments}": swapped(as_method(name, *arguments))
        for name, every in PARTS.items()
        for arguments in every
    },
    **{
        f"torch.{name}{arguments}": swapped(as_function(name, *arguments))
        for name, every in PARTS.items()
        for arguments in every
    },
    # as sums and scales
    "torch.add": lambda m, x: torch.add(x, F.relu(x)),
    "add": lambda m, x: x.add(x).add(2),
    "torch.sub": lambda m, x: torch.sub(F.relu(x), x),
    "sub": lambda m, x: x.sub(F.relu(x)).sub(0.5),
    "torch.mul": lambda m, x: torch.mul(x, -3),
    "mul": lambda m, x: x.mul(m.scale),
    "torch.div": lambda m, x: torch.div(x, -4),
    "div": lambda m, x: x.div(m.std),
    "torch.neg": lambda m, x: torch.neg(x),
    "neg": lambda m, x: x.neg(),
    "operators": lambda m, x: -(2 * x - F.relu(x) / 3 + 1) * 0.5,
    "a number less x": lambda m, x: 1 - x,
    "a parameter less x": lambda m, x: m.row - x,
    "sum()": lambda m, x: sum([x, F.relu(x), x]),
    "scale and shift": lambda m, x: m.scale * x + m.row,
    "parameters of every rank": lambda m, x: (m.one * x + m.with_batch) * m.table[0] + m.bias[2],
    "normalise": lambda m, x: (x - m.mean) / m.std,
    "integers": lambda m, x: x * m.count + m.count,
    "a tensor made in the forward": lambda m, x: x * torch.full((6, 1), 0.5, dtype=torch.float64),
    "parameters are viewed": lambda m, x: x * m.row.view(1, 1, 1, -1) + m.row.unsqueeze(0)[:, :8] + m.bias[-1:],
    "parameters are indexed": lambda m, x: x[:, 0] * m.pair[1] + m.pair.select(0, 0),
    "constants are split": lambda m, x: x[:, 1:3] * m.mean.chunk(2)[1] + m.std.unbind(0)[0],
    "+=": lambda m, x: operator.iadd(F.silu(x), x),
    "+= of a number": lambda m, x: operator.iadd(F.silu(x), 1),
    "-=": lambda m, x: operator.isub(F.silu(x), x),
    "-= of itself": lambda m, x: (lambda h: operator.isub(h, h.flip(1)))(F.silu(x)),
    "-= of a number": lambda m, x: operator.isub(F.silu(x), 0.5),
    "*=": lambda m, x: operator.imul(F.silu(x), m.scale),
    "/=": lambda m, x: operator.itruediv(F.silu(x), 3.0),
    "one after the other": lambda m, x: operator.itruediv(operator.imul(operator.isub(F.silu(x), x), -2), m.std),
    # means, joins, greatest values
    "torch.mean": lambda m, x: torch.mean(x, (2, 3)),
    "mean": lambda m, x: x.mean(1),
    "mean over the end": lambda m, x: x.mean(dim=[-1, -2], keepdim=True),
    "mean of all of a sample": lambda m, x: x.mean((1, 2, 3)).unsqueeze(1),
    "torch.sum": lambda m, x: torch.sum(x, dim=(1, -1)),
    "sum": lambda m, x: x.sum(2, True),
    "torch.cat": lambda m, x: torch.cat([x, F.relu(x)], 1),
    "torch.concat": lambda m, x: torch.concat((x[:, :, :2], -x), dim=-2),
    "cat of three": lambda m, x: torch.cat([x, x[..., 1:3], x], dim=3),
    "torch.stack": lambda m, x: torch.stack([x, -x], dim=1),
    "stack at the end": lambda m, x: torch.stack([x, -x, x], dim=-1),
    "stack between": lambda m, x: torch.stack((x, -x), 3),
    "torch.maximum": lambda m, x: torch.maximum(x, x.flip(1)),
    "maximum": lambda m, x: x.maximum(-x * 0.5),
    "torch.minimum": lambda m, x: torch.minimum(x, x.flip(3)),
    "minimum": lambda m, x: x.minimum(x.flip(1)),
    "torch.amax": lambda m, x: torch.amax(x, 1),
    "amax": lambda m, x: x.amax(-1, keepdim=True),
    "amax over an image": lambda m, x: x.amax((2, 3)),
    "amax over some": lambda m, x: x.amax(dim=[1, -1], keepdim=True),
    # weights by themselves
    "F.linear": lambda m, x: F.linear(x, m.weight, m.bias),
    "F.linear without bias": lambda m, x: F.linear(x.mean((1, 2)), m.weight),
    "torch.matmul": lambda m, x: torch.matmul(x, m.matrix),
    "matmul": lambda m, x: x.matmul(m.matrix),
    "@": lambda m, x: x @ m.matrix + m.bias,
    "torch.mm": lambda m, x: torch.mm(x[:, 0, 0], m.matrix),
    "mm": lambda m, x: x[:, 0, 0].mm(m.matrix),
    "t": lambda m, x: x @ m.weight.t(),
    "torch.t": lambda m, x: x @ torch.t(m.weight),
    "T": lambda m, x: x @ m.weight.T,
    "mT": lambda m, x: x @ m.weight.mT,
    "sizes of a weight": lambda m, x: x[..., : m.weight.shape[0]] * m.weight.size(1) * m.weight.dim() * m.bias.ndim,
    "F.conv2d": lambda m, x: F.conv2d(x, m.kernel, m.shift, padding=1),
    "F.conv2d of every option": lambda m, x: F.conv2d(x, m.grouped, None, [2, 1], (1, 2), 2, 2),
}


def build(function) -> Reads:
    torch.manual_seed(0)
    return Reads(function).eval()


def test_every_reading_has_an_example():
    targets = {node.target for function in EXAMPLES.values() for node in _Tracer().trace(build(function)).nodes}
    assert set(READINGS) - targets == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_function_is_read_as_what_torch_computes(name):
    """Values, shapes, and gradients, also after a step of an optimiser, which writes into the parameters."""
    model = build(EXAMPLES[name])
    graph = trace(model, SHAPE)
    for batch in (3, 2):
        x, like = (torch.randn(batch, *SHAPE).double().requires_grad_() for _ in range(2))
        like.data.copy_(x.data)
        frozen, found = freeze(graph, x)
        expected = model(like)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        values = walk_forward(frozen, lambda node, *inputs: node.op(*inputs), x)
        assert [tuple(value.shape[1:]) for value in values] == [node.shape for node in frozen.nodes]
        assert {len(value) for value in values} == {batch}
        sources = {id(p): p for p in model.parameters()}
        grads = torch.autograd.grad(
            found.square().sum(), [x, *sources.values()], materialize_grads=True, allow_unused=True
        )
        others = torch.autograd.grad(
            expected.square().sum(), [like, *sources.values()], materialize_grads=True, allow_unused=True
        )
        for one, other in zip(grads, others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(-0.5).add_(0.1)


MIXING = {
    "view": lambda m, x: x.view(1, -1),
    "view of the batch": lambda m, x: x.view(-1, 8),
    "flatten": lambda m, x: x.flatten(0),
    "flatten everything": lambda m, x: torch.flatten(x),
    "transpose": lambda m, x: x.transpose(0, 1),
    "permute": lambda m, x: x.permute(1, 0, 2, 3),
    "flip": lambda m, x: x.flip(0),
    "flip all": lambda m, x: x.flip((0, 1)),
    "roll": lambda m, x: x.roll(1),
    "one sample": lambda m, x: x[0],
    "every other sample": lambda m, x: x[::2],
    "repeat": lambda m, x: x.repeat(2, 1, 1, 1),
    "chunk": lambda m, x: x.chunk(2)[0],
    "unbind": lambda m, x: x.unbind()[0],
    "pad": lambda m, x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0)),
    "stack": lambda m, x: torch.stack([x, x]),
    "t": lambda m, x: x[:, 0, 0].t(),
    "a fixed size": lambda m, x: x.view(5, 6),
}
OVER_THE_BATCH = {
    "mean": lambda m, x: x.mean(),
    "mean by number": lambda m, x: x.mean(0),
    "mean by number from the end": lambda m, x: x.mean((-4, -1)),
    "sum": lambda m, x: torch.sum(x),
    "amax": lambda m, x: x.amax((0, 1)),
    "cat": lambda m, x: torch.cat([x, x]),
}


@pytest.mark.parametrize("name", MIXING)
def test_moves_between_samples_are_refused(name):
    with pytest.raises(ValueError, match=r"cannot be read: .* the batch as dimension 0: .* write -1 or x\.size\(0\)"):
        trace(build(MIXING[name]), SHAPE)


@pytest.mark.parametrize("name", OVER_THE_BATCH)
def test_what_goes_over_the_batch_is_refused(name):
    with pytest.raises(UnsupportedLayerError, match="goes over the batch: name the dimensions, starting with 1"):
        trace(build(OVER_THE_BATCH[name]), SHAPE)


@pytest.mark.parametrize("function", [lambda m, x: x[:2], lambda m, x: x.view(2, -1)])
def test_a_forward_for_batches_of_two_alone_is_refused(function):
    with pytest.raises(ValueError, match=r"of 4 inputs, .* the forward must take batches of any size"):
        trace(build(function), SHAPE)


REGISTER = r".*: make it a separate layer .*@ctbench\.graph\.lower\.register"
CALLED = "is called in a way that is not supported"
REFUSED = {
    # products, and functions that have no reading
    "x * x": (lambda m, x: x * x, "'mul' joins a value of the network with a value of the network: two values can"),
    "x @ x": (lambda m, x: x[:, 0] @ x[:, 0].transpose(1, 2), "'matmul' is the product of a value .* give x @ weight"),
    "weight @ x": (
        lambda m, x: m.matrix @ x,
        "'matmul' is the product of parameter 'matrix' of the network .* a value",
    ),
    "x / x": (lambda m, x: x / x, "'truediv' divides by a value of the network" + REGISTER),
    "1 / x": (lambda m, x: 1 / x, "'truediv' divides by a value of the network" + REGISTER),
    "power": (lambda m, x: x**2, r"'pow_1' \(call_function pow\) is not supported" + REGISTER),
    "F.softmax": (lambda m, x: F.softmax(x, 1), r"'softmax' \(call_function softmax\) is not supported" + REGISTER),
    "softmax": (lambda m, x: x.softmax(1), r"'softmax' \(call_method softmax\) is not supported" + REGISTER),
    "F.conv1d": (lambda m, x: F.conv1d(x[:, 0], m.pair), r"conv1d\) with parameter 'pair' of the network \(Reads\)"),
    "where": (lambda m, x: torch.where(x > 0, x, 0.0), r"'gt' .* is not supported" + REGISTER),
    "a method in place": (lambda m, x: F.silu(x).add_(1), r"'add_' \(call_method add_\) is not supported" + REGISTER),
    "**=": (lambda m, x: operator.ipow(1 * x, 2), r"'ipow' \(call_function ipow\) is not supported" + REGISTER),
    "//=": (lambda m, x: operator.ifloordiv(1 * x, 2), r"'ifloordiv' .* is not supported" + REGISTER),
    "%=": (lambda m, x: operator.imod(1 * x, 2), r"'imod' .* is not supported" + REGISTER),
    # ways to call
    "add, alpha=2": (lambda m, x: torch.add(x, x, alpha=2), f"'add': add {CALLED} .*'alpha'.*" + REGISTER),
    "amax of everything": (lambda m, x: x.amax(), f"'amax': amax {CALLED}" + REGISTER),
    "cat of other ranks": (lambda m, x: torch.cat([x, x[:, 0]], 3), f"'cat': cat {CALLED}" + REGISTER),
    "parts as a whole": (lambda m, x: x.chunk(2, 1), f"'flatten': flatten {CALLED}" + REGISTER),
    "a clamp between tensors": (lambda m, x: x.clamp(m.row, 1), "'clamp': a clamp between tensors .* give numbers"),
    "maximum of a constant": (lambda m, x: torch.maximum(x, m.row), "'maximum' compares with a constant: use clamp"),
    "minimum of a constant": (lambda m, x: torch.minimum(x, m.row), "'minimum' compares with a constant: use clamp"),
    "cat with a constant": (lambda m, x: torch.cat([x, m.with_batch], 1), "'cat' joins values with constants: pad"),
    "padding by name": (lambda m, x: F.conv2d(x, m.kernel, padding="same"), r"'conv2d' has the padding 'same': give"),
    "gelu by tanh": (lambda m, x: F.gelu(x, approximate="tanh"), r"layer 'gelu' \(GELU\): .* use 'none'"),
    "dropout at all times": (lambda m, x: F.dropout(x), "'dropout': .* give training=self.training"),
    "pools with indices": (
        lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0],
        "max_pool2d_with_indices" + REGISTER,
    ),
    "an average rounded up": (lambda m, x: F.avg_pool2d(x, 5, ceil_mode=True), r"layer 'avg_pool2d' .*" + REGISTER),
    "the device": (lambda m, x: x.to(x.device), "asks for .device of a value of the network"),
    "T": (lambda m, x: x[:, 0].mT, "asks for .mT of a value of the network"),
    "infinite padding": (
        lambda m, x: F.pad(x, (1, 1), value=-math.inf),
        "'pad' .* pads with values that are not finite",
    ),
    # constants
    "True": (lambda m, x: x * True, "'mul' joins a value of the network with True"),
    "None": (lambda m, x: x + None, "'add' joins a value of the network with None"),
    "the size of the batch": (lambda m, x: x * x.size(0), "'mul' joins a value .* with the size of the batch"),
    "twice the batch": (lambda m, x: x.view(x.size(0) * 2, -1), "'mul' computes with the size of the batch and 2"),
    "too few entries": (lambda m, x: x * m.bias, r"shape \(4, 6, 8\) with parameter 'bias' .* of shape \(5,\)"),
    "more channels": (lambda m, x: x[:, :1] * m.scale, r"values of shape \(1, 6, 8\) .* expand the values first"),
    "one for each sample": (lambda m, x: x + torch.ones(4, 4, 6, 8), "broadcast to the values, without the batch"),
    "a function of a parameter": (
        lambda m, x: x * m.scale.exp(),
        r"'exp' \(call_method exp\) with parameter 'scale' of the network \(Reads\) is not supported" + REGISTER,
    ),
    "a sum of parameters": (lambda m, x: x * (m.row + m.table[0]), "'row' of the network .* parameter '0' of table"),
    "a multiple of a parameter": (
        lambda m, x: x * (m.row * 2),
        "'mul' computes with parameter 'row' .* and 2, but neither",
    ),
    "a layer of a parameter": (lambda m, x: x * F.relu(m.row), f"'relu': relu with parameter 'row' .* {CALLED}"),
    "a parameter less": (
        lambda m, x: x - m.row,
        "'sub' subtracts or divides by parameter 'row' .*: add it, or multiply",
    ),
    "by a parameter": (lambda m, x: x / m.row, "'truediv' subtracts or divides by parameter 'row' .*: add it, or"),
    "a copied parameter": (lambda m, x: x * m.row.flip(0), "'flip' copies parameter 'row' of the network .*: move the"),
    "a split parameter": (
        lambda m, x: x[:, 0] * m.pair.unbind(0)[0],
        "'unbind' splits parameter 'pair' .*: take slices",
    ),
    "parameters outside of the forward": (
        lambda m, x: x * dict(m.named_parameters())["row"].exp(),
        "is computed from parameters, but it would not follow their training",
    ),
    "written into a parameter": (lambda m, x: operator.iadd(m.row, x), "'iadd' writes into parameter 'row' of the net"),
}
WRONG = {
    "x / 0": (lambda m, x: x / 0, "'truediv' divides by 0"),
    "x / 0.0 among others": (lambda m, x: x / (m.mean * torch.tensor([0.0] + [1.0] * 7)), "'truediv' divides by 0"),
    "x / 1e-320": (lambda m, x: x / 1e-320, "'truediv' divides by 0, or by a number so small"),
    "x * nan": (lambda m, x: x * math.nan, "'mul' computes with nan, which is not finite"),
    "x + inf": (lambda m, x: x + math.inf, "'add' computes with inf"),
    "x / nan": (lambda m, x: x / math.nan, "'truediv' computes with nan"),
    "x + nan in a tensor": (lambda m, x: x + torch.tensor(math.nan), "tensor .* holds NaN or infinite values"),
    "sums of other shapes": (lambda m, x: x + x[:, :1], r"'add' \(Add\): .* \(4, 6, 8\) and \(1, 6, 8\): expand one"),
    "maxima of other shapes": (lambda m, x: torch.maximum(x, x[:, :1]), r"'maximum' \(Concat\): .* cannot be joined"),
    "cat of other shapes": (lambda m, x: torch.cat([x, x[:, :, 1:]], 1), r"'cat' \(Concat\): .* cannot be joined"),
    "a dimension too many": (lambda m, x: x.mean(7), "'mean': there is no dimension 7 in batches"),
    "an entry too many": (lambda m, x: x[:, 9], r"'getitem' cannot be read: .* \(index 9 is out of bounds"),
    "no entries": (
        lambda m, x: x[:, 4:],
        r"'getitem' cannot be read: its output for inputs of shape \(4, 6, 8\) is empty",
    ),
    "other sizes": (lambda m, x: x.view(-1, 7), r"'view' cannot be read: it does not fit .* \(shape '\[-1, 7\]'"),
    "a shuffle of 3": (lambda m, x: F.pixel_shuffle(x, 3), "'pixel_shuffle' cannot be read: it does not fit inputs"),
    "too much reflection": (lambda m, x: F.pad(x, (9, 9), "reflect"), "'pad' cannot be read: it does not fit"),
    "clamp(1, 0)": (lambda m, x: x.clamp(1, 0), r"'clamp': values cannot be clamped to \[1, 0\]: give min < max"),
    "hardtanh(1, 0)": (lambda m, x: F.hardtanh(x, 1.0, 0.0), r"'hardtanh': values cannot be clamped to \[1, 0\]"),
    "dropout of 1.5": (lambda m, x: F.dropout(x, 1.5, False), "'dropout': .*1.5"),
    "large windows": (lambda m, x: F.max_pool2d(x, 9), r"'max_pool2d' \(MaxPool2d\): the windows do not fit"),
    "windows outside of the image": (
        lambda m, x: F.max_pool2d(x[:, :, :2, :2], 2, 1, 1, 3),
        r"'max_pool2d' \(MaxPool2d\): a window of 2 with dilation 3 sees only the padding of a side of 2",
    ),
    "max_pool2d of vectors": (lambda m, x: F.max_pool2d(x.flatten(1), 2), r"takes \(channels, height, width\)"),
    "avg_pool2d of vectors": (lambda m, x: F.avg_pool2d(x.flatten(1), 2), r"takes \(channels, height, width\)"),
    "adaptive pools of vectors": (lambda m, x: F.adaptive_avg_pool2d(x[:, 0], 2), r"takes \(channels, height, width\)"),
    "other features": (lambda m, x: F.linear(x, m.matrix), r"'linear' \(Linear\): the layer takes 5 features"),
    "other channels": (lambda m, x: F.conv2d(x[:, :2], m.kernel), r"'conv2d' \(Conv2d\): the layer takes \(4, height"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_reading_is_refused_with_its_name_and_a_remedy(name):
    function, message = REFUSED[name]
    with pytest.raises(UnsupportedLayerError, match=message):
        trace(build(function), SHAPE)


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_computed_is_said(name):
    function, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        trace(build(function), SHAPE)


def test_a_function_in_a_module_of_the_network_is_named_with_its_path():
    model = nn.Sequential(nn.Identity(), nn.Sequential(build(lambda m, x: torch.sin(m.one * x))))
    with pytest.raises(UnsupportedLayerError, match=r"'1\.0\.sin' \(call_function sin\) is not supported"):
        trace(model, SHAPE)
    model[1][0].function = lambda m, x: x * m.one.exp()
    with pytest.raises(UnsupportedLayerError, match=r"with parameter 'one' of 1\.0 \(Reads\) is not supported"):
        trace(model, SHAPE)
    model[1][0].function = lambda m, x: x * m.one
    assert [node.name for node in trace(model, SHAPE).nodes] == ["input", "0", "1.0.mul", "1.0.flatten"]


def test_a_trace_leaves_no_tensor_on_the_network():
    model = build(lambda m, x: x * torch.full((8,), 2.0, dtype=torch.float64))
    before = dict(vars(model))
    trace(model, SHAPE)
    assert vars(model) == before
    model.function = lambda m, x: torch.sin(x * torch.ones(8).double())
    with pytest.raises(UnsupportedLayerError):
        trace(model, SHAPE)
    assert set(vars(model)) == set(before)


def test_numbers_that_the_precision_of_the_network_does_not_hold_are_refused():
    model = build(lambda m, x: x * 1e39)
    trace(model, SHAPE)
    with pytest.raises(ValueError, match=r"'mul' computes with 1e\+39, which is not finite in torch.float32"):
        trace(model.float(), SHAPE)


def test_parameters_of_two_precisions_are_refused():
    model = build(lambda m, x: x * m.one)
    model.row = nn.Parameter(model.row.float())
    with pytest.raises(ValueError, match=r"are torch.float32, torch.float64, .* use model.float\(\) or model.double"):
        trace(model, SHAPE)


def test_constants_are_put_in_the_precision_of_the_network():
    model = build(lambda m, x: (0.1 * x + torch.full((8,), 0.3, dtype=torch.float64)) * m.count).float()
    graph = trace(model, SHAPE)
    x = torch.randn(3, *SHAPE)
    assert graph(x).dtype == torch.float32
    torch.testing.assert_close(graph(x), model(x).float(), rtol=1e-6, atol=1e-6)
