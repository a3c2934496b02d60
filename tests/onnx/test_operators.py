"""Every operator computes what ONNX Runtime computes, for any batch, and so does its graph."""

import copy
import math

import numpy as np
import pytest
import torch
from tests.onnx.nodes import (
    IMAGE,
    assert_close,
    one,
    singles,
)
from tests.onnx.operator_cases import CASES
from torch import nn

from ctbench import bounds
from ctbench.graph import Precisions, freeze, trace
from ctbench.graph.ops import AlongAxis
from ctbench.onnx import load_onnx
from ctbench.onnx.table import OPERATORS
from ctbench.regions import Box


def test_every_operator_has_a_case():
    shown = {kind for nodes, _, _ in CASES.values() for kind, _, _ in nodes}
    assert set(OPERATORS) <= shown


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [1, "N"])
def test_an_operator_computes_what_onnxruntime_computes(name, batch, write, reference):
    nodes, shape, opset = CASES[name]
    path = write(*nodes, shape=(batch, *shape[1:]), opset=opset)
    model = load_onnx(path)
    assert model.input_shape == shape[1:]
    torch.manual_seed(0)
    x = torch.randn(5, *shape[1:])
    expected = reference(path, x)
    assert model.output_shape == expected.shape[1:]
    assert_close(torch.cat([model(one) for one in x.split(1)]), expected)
    assert_close(model(x), expected)
    assert_close(copy.deepcopy(model).double()(x.double()), expected)


@pytest.mark.parametrize("p", [1, 2])
def test_a_norm_that_may_underflow_has_no_bounds(p, write):
    """ONNX Runtime makes a unit vector of (3e-23, 4e-23) that is 3 % too long, and 0 of smaller ones."""
    model = load_onnx(write(one("LpNormalization", p=p), shape=(1, 2))).double()
    for domain in ("interval", "zonotope", "crown-ibp", "crown", "alpha-crown"):
        lower, upper = bounds(model, Box(torch.full((1, 2), -1e-3).double(), torch.ones(1, 2).double()), domain=domain)
        assert (lower == -math.inf).all(), domain
        assert (upper == math.inf).all(), domain
        low, high = torch.tensor([[[0.2, -0.1]], [[0.3, 0.1]]], dtype=torch.float64)
        lower, upper = bounds(model, Box(low, high), domain=domain)
        assert (lower > -2).all(), domain
        assert (upper < 2).all(), domain
    tiny = 1e-39 if p == 1 else 1e-23
    assert model(torch.tensor([[3 * tiny, 4 * tiny]]).double()).isnan().all()
    assert model(torch.tensor([[3e-15, 4e-15]]).double()).isfinite().all()
    assert not model(torch.zeros(1, 2).double()).any()


@pytest.mark.parametrize("name", CASES)
def test_the_graph_of_an_operator(name, write):
    nodes, shape, opset = CASES[name]
    model = nn.Sequential(load_onnx(write(*nodes, shape=shape, opset=opset)), nn.Flatten()).double()
    x = torch.randn(3, *shape[1:], dtype=torch.float64)
    graph, output = freeze(trace(model, shape[1:]), x)
    torch.testing.assert_close(output, model(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(graph(x[:2]), model(x[:2]), rtol=1e-10, atol=1e-10)


def test_a_proof_has_the_weights_of_an_interpolation_in_double_precision(write):
    """1/3 in single precision would be the weight of another network."""
    path = write(one("Resize", "x", None, singles(1, 1, 3, 1), mode="linear"), shape=IMAGE, opset=17)
    model = nn.Sequential(load_onnx(path), nn.Flatten(), nn.LazyLinear(2))
    twin = Precisions.of(model, model(torch.zeros(1, *IMAGE[1:])).new_zeros(1, *IMAGE[1:]))
    for graph, third in ((twin.search, float(np.float32(1 / 3))), (twin.proof, 1 / 3)):
        (weight,) = (node.op.weight for node in graph.nodes if isinstance(node.op, AlongAxis))
        assert weight[2].double().tolist()[:2] == [pytest.approx(2 / 3, rel=1e-7), third]
