"""The way out that a message offers works: what is refused, what the message says, and what it says to write."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.graph.forwards import SHAPE, Reads, build
from torch import Tensor, nn

from ctbench import bounds
from ctbench.graph import UnsupportedLayerError, freeze, lower, trace
from ctbench.graph.ops import Sin
from ctbench.regions import Box


def masked(m: Reads, x: Tensor) -> Tensor:
    return torch.softmax(x @ x.transpose(-2, -1) / math.sqrt(8) + m.matrix[:6, :1].mT, -1) @ x


# a forward that is refused, what is said, and the forward that the message recommends
FORWARDS = {
    "+= into a parameter": (
        lambda m, x: m.row.__iadd__(x),
        r"write a = a \+ b",
        lambda m, x: m.row + x,
    ),
    "a value of another rank": (
        lambda m, x: x * x[:, 0],
        "same number of axes, with unsqueeze",
        lambda m, x: x * x[:, 0].unsqueeze(1),
    ),
    "a constant of a higher rank": (
        lambda m, x: x[:, 0] * m.with_batch[0],
        "expand the values first",
        lambda m, x: x[:, 0].unsqueeze(1).expand(-1, 4, -1, -1) * m.with_batch[0],
    ),
    "a mask that depends on the input": (
        lambda m, x: x.masked_fill(x > 0.5, -math.inf).softmax(3),
        "fill with a finite number such as -1e4",
        lambda m, x: x.masked_fill(x > 0.5, -1e4).softmax(3),
    ),
    "a mask that leaves nothing": (
        lambda m, x: (x + torch.tensor([-math.inf])).softmax(3),
        "leave an entry in each row",
        lambda m, x: (x + torch.tensor([-math.inf] * 7 + [0.0])).softmax(3),
    ),
    "a mask long before the softmax": (
        lambda m, x: (-x.masked_fill(torch.arange(8) < 2, -math.inf)).softmax(3),
        "apply the mask right before the softmax",
        lambda m, x: (-x).masked_fill(torch.arange(8) < 2, -math.inf).softmax(3),
    ),
    "a negative multiple of a masked value": (
        lambda m, x: (x.masked_fill(torch.arange(8) < 2, -math.inf) * -0.5).softmax(3),
        "right before the softmax",
        lambda m, x: (x * -0.5).masked_fill(torch.arange(8) < 2, -math.inf).softmax(3),
    ),
    "a masked output": (
        lambda m, x: x[:, 0, 0].masked_fill(torch.arange(8) < 2, -math.inf),
        "apply the mask right before the softmax",
        lambda m, x: x[:, 0, 0].masked_fill(torch.arange(8) < 2, -math.inf).softmax(1),
    ),
    "random values of a shape": (
        lambda m, x: x + torch.rand_like(x),
        "random cannot be certified: .* store them as a buffer",
        lambda m, x: x + m.with_batch,
    ),
    "an RMS norm whose eps is left to the precision": (
        lambda m, x: F.rms_norm(x, (8,)),
        r"eps=torch.finfo\(torch.float32\).eps",
        lambda m, x: F.rms_norm(x, (8,), eps=torch.finfo(torch.float32).eps),
    ),
    "vectors": (
        lambda m, x: x[:, 0, 0] @ x[:, 0].transpose(1, 2),
        "same number of axes",
        lambda m, x: x[:, 0, :1] @ x[:, 0].transpose(1, 2),
    ),
    "padding by name": (
        lambda m, x: F.conv2d(x, m.kernel, padding="same"),
        "give numbers",
        lambda m, x: F.conv2d(x, m.kernel, padding=1),
    ),
    "all of a batch": (lambda m, x: x.sum(), "name the dimensions", lambda m, x: x.sum((1, 2, 3)).unsqueeze(1)),
    "the extreme of a batch": (lambda m, x: x.max(), "name the dimension", lambda m, x: x.max(1)[0]),
    "a choice of a batch": (lambda m, x: x.argmax(), "name the dimension", lambda m, x: x.argmax(1)),
    "numbers as truth values": (lambda m, x: x.bool(), "compare them", lambda m, x: (x > 0).bool()),
    "equal numbers": (lambda m, x: x == 0.5, "by >= or <=, or round", lambda m, x: x.round() == 1),
    "one hot without a count": (
        lambda m, x: F.one_hot(x.argmax(1)),
        "give the number of classes",
        lambda m, x: F.one_hot(x.argmax(1), 4),
    ),
    "one hot of numbers": (lambda m, x: F.one_hot(x, 4), "those of argmax", lambda m, x: F.one_hot(x.argmax(1), 4)),
    "a power of two values": (
        lambda m, x: (x.abs() + 1) ** x,
        r"write torch.exp\(y \* torch.log\(x\)\)",
        lambda m, x: torch.exp(x * torch.log(x.abs() + 1)),
    ),
    "a power of a parameter": (
        lambda m, x: (m.row - 9) ** x,
        r"store the logarithm, and write torch.exp\(x \* log_b\)",
        lambda m, x: torch.exp(x * m.row),
    ),
    "the norm of matrices": (
        lambda m, x: torch.linalg.norm(x, 2, (2, 3)),
        "use torch.linalg.vector_norm",
        lambda m, x: torch.linalg.vector_norm(x, 2, (2, 3)),
    ),
    "the nuclear norm": (
        lambda m, x: torch.norm(x, "nuc", (2, 3)),
        "or 'fro'",
        lambda m, x: torch.norm(x, "fro", (2, 3)),
    ),
    "any order": (
        lambda m, x: x.topk(2, sorted=False)[0],
        "give sorted=True",
        lambda m, x: x.topk(2, sorted=True)[0],
    ),
    "a softmax of no axis": (lambda m, x: F.softmax(x), "name the dimension", lambda m, x: F.softmax(x, 1)),
    "three operands": (
        lambda m, x: torch.einsum("bchw,cw,bcxw->bhx", x, m.pair[0, :4], x),
        "give two operands",
        lambda m, x: torch.einsum("bchw,bcxw->bhx", torch.einsum("bchw,cw->bchw", x, m.pair[0, :4]), x),
    ),
    "a dropout that is on": (
        lambda m, x: F.dropout(x),
        "training=self.training",
        lambda m, x: F.dropout(x, 0.5, m.training),
    ),
    "a dropout in attention": (
        lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
        "dropout_p=0.0",
        lambda m, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.0),
    ),
    "scores with numbers": (
        lambda m, x: F.scaled_dot_product_attention(x, x, x, attn_mask=m.matrix[:6, :1].mT),
        r"write it as torch.softmax\(q @ k.transpose\(-2, -1\) / math.sqrt\(d\) \+ mask, -1\) @ v",
        masked,
    ),
    "other types": (lambda m, x: x.to(torch.int8), "give torch.int64", lambda m, x: x.to(torch.int64)),
    "interpolation with antialias": (
        lambda m, x: F.interpolate(x, (3, 4), mode="bilinear", antialias=True),
        "leave it out",
        lambda m, x: F.interpolate(x, (3, 4), mode="bilinear"),
    ),
    "the transpose of all axes": (lambda m, x: x[:, 0].T, r"and \.mT", lambda m, x: x[:, 0].mT),
}


@pytest.mark.filterwarnings("ignore:Implicit dimension choice", "ignore:The use of `x.T`")
@pytest.mark.parametrize("name", FORWARDS)
def test_a_forward_that_a_message_recommends_is_read(name):
    refused, message, recommended = FORWARDS[name]
    with pytest.raises(ValueError, match=message or None):
        trace(build(refused), SHAPE)
    model, x = build(recommended), torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(freeze(trace(model, SHAPE), x)[1], model(x).double(), rtol=1e-9, atol=1e-9)


def instance_norm() -> nn.Module:
    module = nn.InstanceNorm2d(2, affine=True, track_running_stats=True)
    module.running_mean.copy_(torch.tensor([0.5, -1.0]))
    return module


def as_batch_norm() -> nn.Module:
    module = nn.BatchNorm2d(2)
    module.load_state_dict(instance_norm().state_dict())
    return module


# a layer that is refused, what is said, the layer that the message recommends, and whether it computes the same
LAYERS = {
    "running statistics of an instance norm": (instance_norm, "use a batch norm with its state", as_batch_norm, True),
    "a pool with indices": (
        lambda: nn.MaxPool2d(2, return_indices=True),
        "set return_indices=False",
        lambda: nn.MaxPool2d(2, return_indices=False),
        False,
    ),
    "a batch norm without statistics": (
        lambda: nn.BatchNorm2d(2, track_running_stats=False),
        "set track_running_stats=True",
        lambda: nn.BatchNorm2d(2, track_running_stats=True),
        False,
    ),
    "Flatten of the batch": (lambda: nn.Flatten(0), "flatten from dimension 1", lambda: nn.Flatten(1), False),
}


class Sequences(nn.Module):
    """A layer of sequences, called by a function of the layer and x."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.layer, x)


SEQUENCES = {
    "attention": (
        lambda **options: nn.MultiheadAttention(4, 2, **options),
        lambda layer, x: layer(x, x, x)[0],
        lambda layer, x: layer(*[x.transpose(0, 1)] * 3)[0].transpose(0, 1),
    ),
    "lstm": (
        lambda **options: nn.LSTM(4, 3, 2, bidirectional=True, **options),
        lambda layer, x: layer(x)[0],
        lambda layer, x: layer(x.transpose(0, 1))[0].transpose(0, 1),
    ),
    "encoder": (
        lambda **options: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(4, 2, 6, **options), 2, nn.LayerNorm(4), enable_nested_tensor=False
        ),
        lambda layer, x: layer(x),
        lambda layer, x: layer(x.transpose(0, 1)).transpose(0, 1),
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_the_batch_is_the_dimension_that_a_layer_of_sequences_says(name):
    layer, plain, transposed = SEQUENCES[name]
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    with pytest.raises(
        ValueError, match=r"batch_first=False, .*: set batch_first=True, or give it x.transpose\(0, 1\)"
    ):
        trace(Sequences(layer(), plain).double(), (5, 4))
    with pytest.raises(
        ValueError, match=r"whose batch is dimension 1.* with batch_first=True, give values .* dimension 0"
    ):
        trace(Sequences(layer(batch_first=True), transposed).double(), (5, 4))
    for model in (Sequences(layer(batch_first=True), plain), Sequences(layer(), transposed)):
        model = model.double().eval()
        lower, upper = bounds(model, Box(x, x))
        for end in (lower, upper):
            torch.testing.assert_close(end, model(x).flatten(1), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_a_message_recommends_is_bounded(name):
    refused, message, recommended, same = LAYERS[name]
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        bounds(nn.Sequential(refused(), nn.Flatten()).double(), Box(x, x))
    model = nn.Sequential(recommended(), nn.Flatten()).double().eval()
    lower, upper = bounds(model, Box(x, x))
    expected = nn.Sequential(refused(), nn.Flatten()).double().eval()(x) if same else model(x)
    assert (lower - 1e-9 <= expected).all()
    assert (expected <= upper + 1e-9).all()
    assert (upper - lower).max() < 1e-9


def test_a_function_without_a_reading_becomes_a_layer_with_an_op():
    """The sine stands for a function that ctbench does not know."""

    class Own(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.digamma(x) * 0 + torch.sin(x)

    x = torch.rand(1, 3, dtype=torch.float64) + 1
    with pytest.raises(UnsupportedLayerError, match=r"make it a separate layer .* @ctbench.graph.lower.register"):
        bounds(nn.Sequential(Own()), Box(x, x + 0.1))
    lower.register(Own, lambda module, shape: Sin())
    low, high = bounds(nn.Sequential(Own()), Box(x, x + 0.1))
    assert (low <= torch.sin(x)).all()
    assert (torch.sin(x + 0.1) <= high + 0.1).all()
