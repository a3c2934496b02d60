"""Functions and methods in a forward are read as what torch computes."""

import operator

import pytest
import torch
import torch.nn.functional as F
from tests.graph import constant_examples, nonlinear_examples
from tests.graph.forwards import SHAPE, build

from ctbench.graph import comparisons, freeze, trace, walk_forward
from ctbench.graph.functions import READINGS
from ctbench.graph.trace import _has_op
from ctbench.graph.tracing import Tracer


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
    "dropouts of channels": lambda m, x: (
        F.dropout3d(F.dropout2d(x, 0.5, m.training).unsqueeze(1), training=False).squeeze(1)
        + F.dropout1d(x.flatten(2), training=m.training).view(-1, 4, 6, 8)
    ),
    "F.avg_pool2d": lambda m, x: F.avg_pool2d(x, 3, stride=2, padding=1),
    "F.avg_pool2d of unequal sides": lambda m, x: F.avg_pool2d(x, [2, 3], [1, 2]),
    "F.adaptive_avg_pool2d": lambda m, x: F.adaptive_avg_pool2d(x, 1),
    "F.adaptive_avg_pool2d of uneven parts": lambda m, x: F.adaptive_avg_pool2d(x, [4, 3]),
    "F.adaptive_avg_pool2d that keeps a side": lambda m, x: F.adaptive_avg_pool2d(x, (None, 5)),
    "F.adaptive_avg_pool2d that repeats": lambda m, x: F.adaptive_avg_pool2d(x, (7, 9)),
    "F.max_pool2d": lambda m, x: F.max_pool2d(x, 2),
    "F.max_pool1d": lambda m, x: F.max_pool1d(x.flatten(2), 3, 2, 1),
    "F.max_pool3d": lambda m, x: F.max_pool3d(x.unsqueeze(1), 2, 2, (1, 0, 1), 1, True),
    "a product with matrices": lambda m, x: x @ torch.linspace(-1, 1, 64).double().view(4, 8, 2),
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
    "mT of values": lambda m, x: x.mT @ m.matrix[:6],
    "mT": lambda m, x: x @ m.weight.mT,
    "sizes of a weight": lambda m, x: x[..., : m.weight.shape[0]] * m.weight.size(1) * m.weight.dim() * m.bias.ndim,
    "torch.max": lambda m, x: torch.max(x, -x),
    "max": lambda m, x: x.max(-x),
    "torch.min": lambda m, x: torch.min(x, -x),
    "min": lambda m, x: x.min(-x),
    "torch.subtract": lambda m, x: torch.subtract(x, 1.5, alpha=2).subtract(x, alpha=0.5),
    "torch.multiply": lambda m, x: torch.multiply(x, 1.5).multiply(m.mean),
    "torch.divide": lambda m, x: torch.true_divide(torch.divide(x, 1.5).divide(2.0), 3.0),
    "torch.negative": lambda m, x: torch.negative(x).negative() + torch.add(x, x, alpha=3).add(m.mean, alpha=-1),
    "casts": lambda m, x: x.to(x.dtype).type_as(x).double(),
    "F.conv2d": lambda m, x: F.conv2d(x, m.kernel, m.shift, padding=1),
    "F.conv2d of every option": lambda m, x: F.conv2d(x, m.grouped, None, [2, 1], (1, 2), 2, 2),
}


EXAMPLES |= nonlinear_examples.EXAMPLES | constant_examples.EXAMPLES

# sizes are known while a forward is traced, unless a layer of a user hides them; only torch.export says the others, of
# forwards that write into tensors (test_writes)
APART = {"size", "dim", "slice", "copy", "fill"}


def _tracer() -> Tracer:
    return Tracer(SHAPE, torch.zeros((), dtype=torch.float64), _has_op)


def test_every_reading_has_an_example():
    targets = {node.target for function in EXAMPLES.values() for node in _tracer().trace(build(function)).nodes}
    compared = {target for target, reading in READINGS.items() if reading.__module__ == comparisons.__name__}
    assert set(READINGS) - targets - compared == APART  # test_comparisons has examples of the others


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
            slack = 1e-7 if name in nonlinear_examples.ROUNDED else 1e-10
            torch.testing.assert_close(one, other, rtol=slack, atol=slack)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(-0.5).add_(0.1)
