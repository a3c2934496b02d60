"""Functions and methods in a forward that cannot be read, and what is said of them."""

import math
import operator

import pytest
import torch
import torch.nn.functional as F
from tests.graph.forwards import SHAPE, build
from torch import nn

from ctbench.graph import UnsupportedLayerError, trace

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
    # functions that have no reading, and products of other shapes
    "x @ x of vectors": (
        lambda m, x: x[:, 0, 0] @ x[:, 0, 1:].transpose(1, 2),
        "'matmul' is a product of values of shapes",
    ),
    "x * x of other ranks": (lambda m, x: x * x[:, 0], "broadcast samples across the batch: give both the same number"),
    "digamma": (lambda m, x: torch.digamma(x), r"'digamma' \(call_function digamma\) is not supported" + REGISTER),
    "F.conv1d": (lambda m, x: F.conv1d(x[:, 0], m.pair), r"conv1d\) with parameter 'pair' of the network \(Reads\)"),
    "several": (
        lambda m, x: torch.acos(torch.asin(torch.acos(x))),
        r"'acos' .* is not supported \(all that are missing: acos 2x, asin 1x\)" + REGISTER,
    ),
    "arccos": (lambda m, x: torch.acos(x), r"'acos' .* is not supported" + REGISTER),
    "**=": (lambda m, x: operator.ipow(1 * x, 2), r"'ipow' \(call_function ipow\) is not supported" + REGISTER),
    "//=": (lambda m, x: operator.ifloordiv(1 * x, 2), r"'ifloordiv' .* is not supported" + REGISTER),
    "%=": (lambda m, x: operator.imod(1 * x, 2), r"'imod' .* is not supported" + REGISTER),
    # ways to call
    "amax of everything": (lambda m, x: x.amax(), f"'amax': amax {CALLED}" + REGISTER),
    "cat of other ranks": (lambda m, x: torch.cat([x, x[:, 0]], 3), f"'cat': cat {CALLED}" + REGISTER),
    "parts as a whole": (lambda m, x: x.chunk(2, 1), f"'flatten': flatten {CALLED}" + REGISTER),
    "padding by name": (lambda m, x: F.conv2d(x, m.kernel, padding="same"), r"'conv2d' has the padding 'same': give"),
    "dropout at all times": (lambda m, x: F.dropout(x), "'dropout': .* give training=self.training"),
    "pools with indices": (
        lambda m, x: F.max_pool2d(x, 2, return_indices=True)[0],
        "max_pool2d_with_indices" + REGISTER,
    ),
    "T": (
        lambda m, x: x[:, 0].T,
        r"asks for .T of a value of the network, .*: it has .shape, .ndim, .dtype, .device and",
    ),
    "infinite padding": (
        lambda m, x: F.pad(x, (1, 1), value=-math.inf),
        "'pad' .* pads with values that are not finite",
    ),
    # constants
    "True": (lambda m, x: x * True, "'mul' joins a value of the network with True"),
    "None": (lambda m, x: x + None, "'add' joins a value of the network with None"),
    "the size of the batch": (lambda m, x: x * x.size(0), "'mul' joins a value .* with the size of the batch"),
    "twice the batch": (lambda m, x: x.view(x.size(0) * 2, -1), "computes 2 times the size of the batch"),
    "too few entries": (lambda m, x: x * m.bias, r"shape \(4, 6, 8\) with parameter 'bias' .* of shape \(5,\)"),
    "one for each sample": (lambda m, x: x + torch.ones(4, 4, 6, 8), "broadcast to the values, without the batch"),
    "a function that torch cannot compute": (
        lambda m, x: x * torch.cat([m.row, m.pair]),
        "'cat': torch cannot compute cat of parameter 'row' of the network .Reads., parameter 'pair' .*Tensors must",
    ),
    "a function that writes into a parameter": (
        lambda m, x: x * F.relu(m.row, inplace=True),
        r"'relu' \(relu\) writes into parameter 'row' of the network .*: compute it before the forward",
    ),
    "random values": (lambda m, x: x + torch.randn_like(x), r"'randn_like' .* draws random values, .* cannot be cert"),
    "random values of a parameter": (lambda m, x: x * torch.rand_like(m.row), "'rand_like' .* draws random values"),
    "a parameter with dropout": (lambda m, x: x * F.dropout(m.row), "'dropout' .* draws random values"),
    "random values without a value": (
        lambda m, x: x + torch.randn(8, dtype=x.dtype),
        "the forward of Reads draws random values, and what is random cannot be certified: leave them out",
    ),
    "little random values": (lambda m, x: x + 1e-12 * torch.rand(8).double(), "the forward of Reads draws random"),
    "random values of each sample": (
        lambda m, x: x + torch.randn(x.shape[0], 1, 1, 8, dtype=x.dtype),
        r"the forward of Reads makes a tensor with other numbers for each sample, e.g. random .* shape \[1, 1, 1, 8\]",
    ),
    "places that depend on the input": (
        lambda m, x: x.gather(1, x.argmax(1, keepdim=True)),
        "'gather' takes entries at places that depend on the input: .* constant",
    ),
    "parts of a mask": (
        lambda m, x: F.log_softmax(x.masked_fill(torch.arange(8) < 2, -math.inf), 3),
        r"'log_softmax' \(log_softmax\) takes values some of which are -inf, because of a mask: only a softmax",
    ),
    "a mask that does not fit": (
        lambda m, x: x.masked_fill(torch.ones(2, 4, 6, 8, dtype=torch.bool), -math.inf),
        r"'masked_fill' masks values of shape \(4, 6, 8\) by .* must broadcast to the values, without the batch",
    ),
    "windows with places": (
        lambda m, x: F.adaptive_max_pool2d(x, 2, return_indices=True)[0],
        "adaptive_max_pool2d_with_indices" + REGISTER,
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
    "weights with -inf": (
        lambda m, x: F.linear(x, torch.full((2, 8), -math.inf, dtype=x.dtype)),
        "tensor .* holds NaN or infinite values",
    ),
    "inf in a mask": (lambda m, x: (x + torch.tensor(math.inf)).softmax(3), "tensor .* holds NaN or infinite values"),
    "x + -inf": (lambda m, x: x + -math.inf, "'add' computes with -inf"),
    "x + nan in a tensor": (lambda m, x: x + torch.tensor(math.nan), "tensor .* holds NaN or infinite values"),
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
    "avg_pool2d of vectors": (lambda m, x: F.avg_pool2d(x.flatten(1), 2), "takes the channels and 2 sides"),
    "adaptive pools of vectors": (lambda m, x: F.adaptive_avg_pool2d(x[:, 0], 2), "takes the channels and 2 sides"),
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
    model = nn.Sequential(nn.Identity(), nn.Sequential(build(lambda m, x: torch.digamma(m.one * x))))
    with pytest.raises(UnsupportedLayerError, match=r"'1\.0\.digamma' \(call_function digamma\) is not supported"):
        trace(model, SHAPE)
    model[1][0].function = lambda m, x: x.amax() * m.one
    with pytest.raises(UnsupportedLayerError, match=r"'1\.0\.amax': amax is called in a way that is not supported"):
        trace(model, SHAPE)
    model[1][0].function = lambda m, x: x * m.one
    assert [node.name for node in trace(model, SHAPE).nodes] == ["input", "0", "1.0.mul", "1.0.flatten"]


def test_a_trace_leaves_no_tensor_on_the_network():
    model = build(lambda m, x: x * torch.full((8,), 2.0, dtype=torch.float64))
    before = dict(vars(model))
    trace(model, SHAPE)
    assert vars(model) == before
    model.function = lambda m, x: torch.digamma(x * torch.ones(8).double())
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
