"""Reading: every operator computes the same as ONNX Runtime, for any batch; other files are refused."""

import copy
import io
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from ctbench import bounds
from ctbench.graph import Precisions, UnsupportedLayerError, freeze, trace
from ctbench.onnx import OnnxError, OnnxNetwork, load_onnx
from ctbench.onnx.table import OPERATORS
from ctbench.regions import Linf


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    scale = float(expected.abs().max().clamp(min=1e-3))
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=tolerance * scale)


# ------------------------------------------------------------------------------------------- networks of others


def test_a_network_of_others_computes_what_onnxruntime_computes(network, reference):
    model = load_onnx(network)
    torch.manual_seed(0)
    x = torch.rand(5, *model.input_shape)
    expected = reference(network, x)
    assert model.output_shape == expected.shape[1:]
    assert_close(torch.cat([model(one) for one in x.split(1)]), expected, 1e-4)
    assert_close(model(x), expected, 1e-4)
    assert_close(copy.deepcopy(model).double()(x.double()), expected, 1e-4)


def test_the_graph_of_a_network_of_others(network):
    model = load_onnx(network).double()
    torch.manual_seed(0)
    x = torch.rand(3, *model.input_shape, dtype=torch.float64)
    graph, logits = freeze(trace(model, model.input_shape), x)
    torch.testing.assert_close(logits, model(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(graph(x[:1]), model(x[:1]), rtol=1e-10, atol=1e-10)


# ------------------------------------------------------------------------------------------------------ copies


def by_torch(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))  # what this test has made itself


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, by_pickle, by_torch])
def test_a_copy_is_the_same_network(write, copied):
    path = write(
        one("Conv", arr(4, 3, 3, 3), arr(4)),
        one("Add", "1", arr(4, 1, 1)),
        one("Relu", "2"),
        one("Flatten", "3"),
        one("Gemm", "4", arr(2, 80), arr(2), transB=1, alpha=0.5),
        shape=IMAGE,
    )
    model = load_onnx(path)
    model.train()
    model.get_submodule("node3").eval()
    again = copied(model)
    assert isinstance(again, OnnxNetwork)
    assert (again.input_shape, again.output_shape) == (model.input_shape, model.output_shape) == ((3, 7, 6), (2,))
    modes = {name: module.training for name, module in model.named_modules()}
    assert {name: module.training for name, module in again.named_modules()} == modes
    x = torch.rand(2, 3, 7, 6)
    assert torch.equal(again(x), model(x))
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in model.named_parameters()]
    shared = all(mine is other for mine, other in zip(again.parameters(), model.parameters(), strict=True))
    assert shared == (copied is copy.copy)
    assert copied(again).input_shape == model.input_shape


# ----------------------------------------------------------------------------------- numbers in double precision


def test_the_factors_of_a_gemm_are_exact_in_double_precision(write):
    """0.1 and 0.3 in single precision times weights in it: in double precision nothing is rounded."""
    weight, bias = arr(5, 4), arr(5)
    model = load_onnx(write(one("Gemm", weight, bias, transB=1, alpha=0.1, beta=0.3), shape=VECTOR))
    alpha, beta = np.float64(np.float32(0.1)), np.float64(np.float32(0.3))
    assert (weight.astype(np.float64) * alpha != weight * np.float32(0.1)).any()
    op = Precisions.of(model, torch.zeros(VECTOR)).exact.nodes[-1].op
    assert np.array_equal(op.weight.numpy(), alpha * weight)
    assert np.array_equal(op.bias.numpy(), beta * bias)
    other = load_onnx(write(one("Gemm", weight, bias, transB=1, beta=0.3), shape=VECTOR))
    assert np.array_equal(Precisions.of(other, torch.zeros(VECTOR)).exact.nodes[-1].op.bias.numpy(), beta * bias)


def test_the_weights_of_a_gemm_train(write):
    model = load_onnx(write(one("Gemm", arr(5, 4), arr(5), transB=1, alpha=0.5, beta=-2.0), shape=VECTOR))
    graph = trace(model, (4,))
    x = torch.rand(2, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    _, logits = freeze(graph, x)
    assert torch.equal(logits, model(x))
    logits.sum().backward()
    assert torch.equal(model.get_parameter("node1.bias").grad, torch.full((5,), -4.0))
    with pytest.raises(ValueError, match="not multiplied out yet"):
        graph(x)


def test_defaults_are_in_single_precision(write):
    """Like all attributes of ONNX; 0.01 in double precision is another slope."""
    (leaky,) = load_onnx(write(one("LeakyRelu"), shape=VECTOR)).children()
    assert leaky.negative_slope == float(np.float32(0.01)) != 0.01
    (norm,) = load_onnx(write(one("BatchNormalization", *STATISTICS), shape=IMAGE)).children()
    assert norm.eps == float(np.float32(1e-5)) != 1e-5


# --------------------------------------------------------------------------------------------- every operator

rng = np.random.default_rng(0)


def arr(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return np.abs(arr(*shape)) + 0.5


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def scalar(value: float) -> np.ndarray:
    return np.array(value, dtype=np.float32)


def one(kind: str, *inputs, **attributes) -> tuple:
    """A node; the input is "x" if no input is named."""
    return kind, inputs if any(isinstance(name, str) for name in inputs) else ("x", *inputs), attributes


STATISTICS = (positive(3), arr(3), arr(3), positive(3))
IMAGE, SIGNAL, VECTOR = (1, 3, 7, 6), (1, 3, 9), (1, 4)

# name: (nodes, shape of the input, opset)
CASES = {
    "Conv": ([one("Conv", arr(4, 3, 3, 3), arr(4))], IMAGE, 17),
    "Conv without bias": ([one("Conv", arr(4, 3, 2, 3), strides=[2, 1], pads=[1, 2, 1, 2])], IMAGE, 17),
    "Conv group dilation": ([one("Conv", arr(6, 1, 3, 3), arr(6), group=3, dilations=[2, 1])], IMAGE, 17),
    "Conv uneven": ([one("Conv", arr(4, 3, 3, 3), arr(4), pads=[0, 1, 2, 3], strides=[2, 2])], IMAGE, 17),
    "Conv VALID": ([one("Conv", arr(4, 3, 3, 3), auto_pad="VALID")], IMAGE, 17),
    "Conv SAME_UPPER": ([one("Conv", arr(4, 3, 4, 3), auto_pad="SAME_UPPER", strides=[2, 3])], IMAGE, 17),
    "Conv SAME_LOWER": ([one("Conv", arr(4, 3, 4, 3), auto_pad="SAME_LOWER", strides=[2, 3])], IMAGE, 17),
    "Conv 1d": ([one("Conv", arr(4, 3, 3), arr(4), pads=[1, 1], strides=[2])], SIGNAL, 17),
    "Conv 1d SAME_UPPER": ([one("Conv", arr(4, 3, 4), auto_pad="SAME_UPPER", strides=[2])], SIGNAL, 17),
    "ConvTranspose": (
        [one("ConvTranspose", arr(3, 2, 3, 3), arr(2), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0])],
        IMAGE,
        17,
    ),
    "ConvTranspose group": ([one("ConvTranspose", arr(3, 2, 2, 3), group=3, dilations=[2, 1])], IMAGE, 17),
    "ConvTranspose 1d": ([one("ConvTranspose", arr(3, 2, 3), arr(2), strides=[2])], SIGNAL, 17),
    "Gemm": ([one("Gemm", arr(4, 5), arr(5))], VECTOR, 17),
    "Gemm transB alpha beta": ([one("Gemm", arr(5, 4), arr(1, 5), transB=1, alpha=0.5, beta=-2.0)], VECTOR, 17),
    "Gemm one bias for all": ([one("Gemm", arr(5, 4), scalar(3.0), transB=1)], VECTOR, 17),
    "Gemm without C": ([one("Gemm", arr(4, 5))], VECTOR, 17),
    "MatMul": ([one("MatMul", arr(4, 5))], VECTOR, 17),
    "MatMul of a matrix": ([one("MatMul", arr(6, 5))], (1, 3, 6), 17),
    "MatMul of a matrix, 3 axes": ([one("MatMul", arr(1, 6, 5))], (1, 3, 6), 17),
    "MatMul from the left": ([one("MatMul", arr(5, 3), "x")], (1, 3, 6), 17),
    "MatMul from the left, 4 axes": ([one("MatMul", arr(5, 7), "x")], IMAGE, 17),
    "BatchNormalization": ([one("BatchNormalization", *STATISTICS, epsilon=0.1)], IMAGE, 17),
    "BatchNormalization of vectors": ([one("BatchNormalization", *STATISTICS)], (1, 3), 9),
    "BatchNormalization of signals": ([one("BatchNormalization", *STATISTICS)], SIGNAL, 15),
    "Relu": ([one("Relu")], IMAGE, 17),
    "LeakyRelu": ([one("LeakyRelu")], VECTOR, 17),
    "LeakyRelu alpha": ([one("LeakyRelu", alpha=0.2)], VECTOR, 17),
    "Sigmoid": ([one("Sigmoid")], VECTOR, 17),
    "Tanh": ([one("Tanh")], VECTOR, 17),
    "Gelu": ([one("Gelu")], VECTOR, 20),
    "Gelu tanh": ([one("Gelu", approximate="tanh")], VECTOR, 20),
    "x sigmoid(x)": ([one("Sigmoid"), one("Mul", "x", "1")], VECTOR, 17),
    "x tanh(x)": ([one("Tanh"), one("Mul", "1", "x")], VECTOR, 17),
    "Div a constant": ([one("Sigmoid"), one("Div", scalar(2.0), "1")], VECTOR, 17),
    "Abs": ([one("Abs")], VECTOR, 17),
    "Neg": ([one("Neg")], VECTOR, 17),
    "Clip": ([one("Clip", scalar(-0.5), scalar(0.25))], VECTOR, 17),
    "Clip below": ([one("Clip", scalar(-0.5))], VECTOR, 17),
    "Clip above": ([one("Clip", "x", None, scalar(0.5))], VECTOR, 17),
    "Clip of nothing": ([one("Clip"), one("Relu", "1")], VECTOR, 17),
    "Clip by attributes": ([one("Clip", min=-0.5, max=0.5)], VECTOR, 9),
    "MaxPool": ([one("MaxPool", kernel_shape=[2, 3], strides=[2, 1])], IMAGE, 17),
    "MaxPool padded": ([one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])], IMAGE, 17),
    "MaxPool ceil": ([one("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], IMAGE, 17),
    "MaxPool dilated": ([one("MaxPool", kernel_shape=[2, 2], dilations=[3, 2])], IMAGE, 17),
    "MaxPool 1d": ([one("MaxPool", kernel_shape=[3])], SIGNAL, 17),
    "AveragePool": ([one("AveragePool", kernel_shape=[2, 3], strides=[2, 1])], IMAGE, 17),
    "AveragePool padded": ([one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])], IMAGE, 17),
    "AveragePool counting the pads": (
        [one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
        IMAGE,
        17,
    ),
    "AveragePool uneven": (
        [one("AveragePool", kernel_shape=[3, 3], pads=[0, 1, 2, 1], count_include_pad=1)],
        IMAGE,
        17,
    ),
    "AveragePool 1d": ([one("AveragePool", kernel_shape=[3], strides=[2])], SIGNAL, 17),
    "GlobalAveragePool": ([one("GlobalAveragePool")], IMAGE, 17),
    "ReduceMean by attributes": ([one("ReduceMean", axes=[-1, 2], keepdims=0)], IMAGE, 13),
    "ReduceMean": ([one("ReduceMean", ints(1, 3))], IMAGE, 18),
    "ReduceMean of nothing": ([one("ReduceMean", noop_with_empty_axes=1), one("Relu", "1")], IMAGE, 18),
    "ReduceMax": ([one("ReduceMax", axes=[-2])], IMAGE, 17),
    "ReduceMax without its axis": ([one("ReduceMax", ints(1), keepdims=0)], IMAGE, 18),
    "Add": ([one("Add", arr(3, 1, 1))], IMAGE, 17),
    "Add to a constant": ([one("Add", arr(1, 3, 1, 6), "x")], IMAGE, 17),
    "Add a number": ([one("Add", scalar(2.0))], IMAGE, 17),
    "Add itself": ([one("Add", "x", "x")], IMAGE, 17),
    "Add branches": ([one("Relu"), one("Add", "x", "1")], IMAGE, 17),
    "Sub": ([one("Sub", arr(1, 3, 1, 1))], IMAGE, 17),
    "Sub from a constant": ([one("Sub", arr(6), "x")], IMAGE, 17),
    "Sub branches": ([one("Relu"), one("Sub", "1", "x")], IMAGE, 17),
    "Mul": ([one("Mul", arr(3, 1, 1))], IMAGE, 17),
    "Mul a constant": ([one("Mul", scalar(-2.0), "x")], IMAGE, 7),
    "Div": ([one("Div", positive(1, 3, 1, 1))], IMAGE, 17),
    "Sum": ([one("Relu"), one("Neg"), one("Sum", "x", "1", "2")], VECTOR, 17),
    "Sum of one": ([one("Relu"), one("Sum", "1")], VECTOR, 17),
    "Concat": ([one("Relu"), one("Concat", "x", "1", "x", axis=1)], IMAGE, 17),
    "Concat last axis": ([one("Relu"), one("Concat", "1", "x", axis=-1)], IMAGE, 17),
    "Flatten": ([one("Flatten")], IMAGE, 17),
    "Flatten axis 0": ([one("Flatten", axis=0)], IMAGE, 17),
    "Flatten after a 1": ([one("Flatten", axis=-1)], (1, 1, 5), 17),
    "Reshape to one row": ([one("Reshape", ints(1, -1))], IMAGE, 17),
    "Reshape to rows": ([one("Reshape", ints(-1, 126))], IMAGE, 17),
    "Reshape to one row, given": ([one("Reshape", ints(1, 126))], IMAGE, 17),
    "Reshape copying": ([one("Reshape", ints(0, 0, -1))], IMAGE, 17),
    "Reshape to an image": ([one("Reshape", ints(-1, 7, 3, 6))], IMAGE, 17),
    "Reshape to what it is": ([one("Reshape", ints(-1, 3, 7, 6)), one("Relu", "1")], IMAGE, 17),
    "Reshape to a computed shape": (
        [
            one("Shape"),
            one("Gather", "1", np.array(0, dtype=np.int64)),
            one("Unsqueeze", "2", ints(0)),
            ("Constant", (), {"value_ints": [-1]}),
            one("Concat", "3", "4", axis=0),
            one("Cast", "5", to=TensorProto.FLOAT),
            one("Cast", "6", to=TensorProto.INT64),
            one("Reshape", "x", "7"),
        ],
        IMAGE,
        17,
    ),
    "Reshape by the last sizes": (
        [
            one("Shape", start=2),
            one("Slice", "1", ints(-9), ints(-1)),
            one("Concat", ints(1, -1), "2", axis=0),
            one("Reshape", "x", "3"),
        ],
        IMAGE,
        17,
    ),
    "a constant made of a shape": ([one("Shape"), one("ConstantOfShape", "1"), one("Add", "x", "2")], IMAGE, 17),
    "Squeeze": ([one("Squeeze", ints(-1, 1))], (1, 1, 5, 1), 17),
    "Squeeze by attribute": ([one("Squeeze", axes=[2])], (1, 5, 1), 11),
    "Unsqueeze": ([one("Unsqueeze", ints(1, -1))], VECTOR, 17),
    "Unsqueeze by attribute": ([one("Unsqueeze", axes=[2])], VECTOR, 11),
    "Transpose": ([one("Transpose", perm=[0, 2, 3, 1])], IMAGE, 17),
    "Slice": ([one("Slice", ints(1, -3), ints(99, -1), ints(2, -1))], IMAGE, 17),
    "Slice with steps": ([one("Slice", ints(0, 1), ints(1, 7), ints(0, 2), ints(1, 2))], IMAGE, 17),
    "Slice by attributes": ([one("Slice", starts=[0, 1], ends=[9, 3], axes=[0, 1])], IMAGE, 9),
    "Slice without axes": ([one("Slice", ints(0, 1), ints(2**40, 3))], IMAGE, 17),
    "Split": (
        [one("Split", ints(2, 5), axis=2, outputs=["a", "b"]), one("Concat", "b", "a", axis=2)],
        IMAGE,
        17,
    ),
    "Split by attribute": (
        [one("Split", split=[1, 2], axis=1, outputs=["a", "b"]), one("Relu", "b")],
        IMAGE,
        11,
    ),
    "Split evenly": ([one("Split", axis=-1, outputs=["a", "b"]), one("Sub", "a", "b")], IMAGE, 17),
    "Split into a smaller rest": (
        [one("Split", axis=2, num_outputs=3, outputs=["a", "b", "c"]), one("Concat", "c", "a", axis=2)],
        IMAGE,
        18,
    ),
    "Gather": ([one("Gather", ints(2, 0, 0), axis=1)], IMAGE, 17),
    "Gather one": ([one("Gather", np.array(-1, dtype=np.int64), axis=2)], IMAGE, 17),
    "Pad": ([one("Pad", ints(0, 0, 1, 0, 0, 1, 2, 3))], IMAGE, 17),
    "Pad with a value": ([one("Pad", ints(0, 0, 1, 0, 0, 1, 2, 3), scalar(0.0))], IMAGE, 17),
    "Pad by attribute": ([one("Pad", pads=[0, 0, 1, 1, 0, 0, 1, 1])], IMAGE, 10),
    "Pad some axes": ([one("Pad", "x", ints(1, 2, 0, 1), None, ints(3, 1))], IMAGE, 18),
    "Dropout": ([one("Dropout", scalar(0.5)), one("Relu", "1")], VECTOR, 17),
    "Dropout by attribute": ([one("Dropout", ratio=0.5), one("Relu", "1")], VECTOR, 10),
    "Identity": ([one("Identity"), one("Relu", "1")], VECTOR, 17),
    "Identity of weights": ([("Identity", (arr(4, 5),), {}), one("MatMul", "x", "1")], VECTOR, 17),
    "Transpose of weights": (
        [("Transpose", (arr(5, 4),), {"perm": [1, 0]}), one("MatMul", "x", "1")],
        VECTOR,
        17,
    ),
    "Cast": ([one("Cast", to=TensorProto.FLOAT), one("Relu", "1")], VECTOR, 17),
    "Shape of all": ([one("Shape"), one("Reshape", "x", "1"), one("Relu", "2")], VECTOR, 17),
}


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


# What torch computes and the graph has no op for.
WITHOUT_OP = {
    "x tanh(x)",
    "Div a constant",
    "ConvTranspose 1d",
    "MaxPool 1d",
    "AveragePool 1d",
    "AveragePool padded",
    "Gelu tanh",
}


@pytest.mark.parametrize("name", CASES)
def test_the_graph_of_an_operator(name, write):
    nodes, shape, opset = CASES[name]
    model = nn.Sequential(load_onnx(write(*nodes, shape=shape, opset=opset)), nn.Flatten()).double()
    if name in WITHOUT_OP:
        with pytest.raises(UnsupportedLayerError):
            trace(model, shape[1:])
        return
    x = torch.randn(3, *shape[1:], dtype=torch.float64)
    graph, output = freeze(trace(model, shape[1:]), x)
    torch.testing.assert_close(output, model(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(graph(x[:2]), model(x[:2]), rtol=1e-10, atol=1e-10)


# ----------------------------------------------------------------------------------------- as a torch module


def small(write) -> Path:
    """A network of a convolution, a batch norm and a dense layer, for inputs (3, 7, 6)."""
    return write(
        one("Sub", arr(1, 3, 1, 1)),
        one("Conv", "1", arr(4, 3, 3, 3), arr(4), strides=[2, 2]),
        one("BatchNormalization", "2", positive(4), arr(4), arr(4), positive(4), momentum=0.75),
        one("Relu", "3"),
        one("Flatten", "4"),
        one("Gemm", "5", arr(5, 24), arr(5), transB=1),
        shape=IMAGE,
    )


def test_layers_and_constants_are_named_as_in_the_file(write):
    path = small(write)
    file = onnx.load(path)
    names = {"constant2.1": "features.0.weight", "constant2.2": "features.0.bias", "constant6.1": "type.weight"}
    for holder in (*file.graph.node, *file.graph.initializer):
        if isinstance(holder, onnx.TensorProto):
            holder.name = names.get(holder.name, holder.name)
        else:
            holder.input[:] = [names.get(name, name) for name in holder.input]
    onnx.save(file, path)
    model = load_onnx(path)
    assert [name for name, _ in model.named_parameters()] == [
        *("features.0.weight", "features.0.bias", "node3.weight", "node3.bias"),
        *("type_.weight", "type_.bias"),  # a module has a method of the name "type"
    ]
    assert "constant1_1" in dict(model.named_buffers())


def test_layers_of_one_name_stand_beside_each_other(write):
    path = write(one("Relu"), one("Neg", "1"), one("Relu", "2"))
    file = onnx.load(path)
    file.graph.node[2].name = "node1"
    onnx.save(file, path)
    assert [name for name, _ in load_onnx(path).named_children()] == ["node1", "node1_2"]


def test_a_network_trains_and_is_copied_with_its_shapes(write):
    model = load_onnx(small(write))
    assert not model.training
    assert all(not part.is_meta for part in (*model.parameters(), *model.buffers()))
    twin = copy.deepcopy(model)
    assert (twin.input_shape, twin.output_shape) == ((3, 7, 6), (5,))
    x = torch.randn(4, 3, 7, 6)
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    model(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    assert not torch.equal(model.eval()(x), twin(x))
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin(x), model(x))


def test_momentum_is_the_share_of_the_new_statistics(write):
    assert load_onnx(small(write)).node3.momentum == pytest.approx(0.25)


def test_reading_leaves_the_random_numbers_alone(write):
    path = small(write)
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    load_onnx(path)
    torch.testing.assert_close(torch.rand(1), expected, rtol=0, atol=0)


def test_bounds_of_a_network_from_a_file(write):
    model = load_onnx(small(write)).double()
    torch.manual_seed(0)
    x = torch.rand(2, 3, 7, 6, dtype=torch.float64)
    lower, upper = bounds(model, x, eps=0.05, domain="crown")
    for point in Linf(eps=0.05).region(x).sample(50):
        output = model(point)
        assert bool((lower <= output).all() and (output <= upper).all())


def test_a_network_in_double_precision(write, reference):
    matrix, x = rng.normal(size=(4, 5)), torch.randn(3, 4, dtype=torch.float64)
    path = write(one("MatMul", matrix), one("Relu", "1"), dtype=TensorProto.DOUBLE)
    assert_close(load_onnx(path)(x), reference(path, x), 1e-14)


def test_weights_in_a_file_beside_the_model(write, reference):
    path, x = small(write), torch.randn(2, 3, 7, 6)
    expected = reference(path, x)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert_close(load_onnx(path)(x), expected)
    (path.parent / "weights.bin").unlink()
    with pytest.raises(OnnxError, match=r"weights\.bin"):
        load_onnx(path)


def test_weights_outside_of_the_folder_are_refused(write, tmp_path):
    path = small(write)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    inside = tmp_path / "inside"
    inside.mkdir()
    file = onnx.load(path, load_external_data=False)
    for weight in file.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    onnx.save(file, inside / "model.onnx")
    with pytest.raises(OnnxError, match="points outside"):
        load_onnx(inside / "model.onnx")


def test_initialisers_that_are_also_listed_as_inputs(write, reference):
    path, x = small(write), torch.randn(2, 3, 7, 6)
    file = onnx.load(path)
    for weight in file.graph.initializer:  # as files of before 2019 do
        file.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    onnx.save(file, path)
    assert_close(load_onnx(path)(x), reference(path, x))


# ------------------------------------------------------------------------------------------------- refusals

PAIR = (1, 2, 3)

# name: (nodes, shape of the input, opset, what the message says)
REFUSALS = {
    "an operator without a reading": ([one("Softplus")], VECTOR, 17, r"'node1' \(Softplus\): not supported: .*Conv, "),
    "Softmax": ([one("Relu"), one("Softmax", "1")], VECTOR, 17, r"'node2' \(Softmax\).* take it out"),
    "LogSoftmax": ([one("LogSoftmax")], VECTOR, 17, "take it out"),
    "Flatten of the batch": ([one("Flatten", axis=2)], PAIR, 17, r"\[2, 3\] of \[1, 2, 3\].*stay the batch"),
    "Reshape of the batch": ([one("Reshape", ints(-1, 3))], PAIR, 17, "stay the batch"),
    "Reshape to one axis": ([one("Reshape", ints(-1))], PAIR, 17, "stay the batch"),
    "Reshape that does not fit": ([one("Reshape", ints(1, -1, 3, 5))], VECTOR, 17, "cannot be computed"),
    "Squeeze of the batch": ([one("Squeeze", ints(0))], PAIR, 17, "across the batch"),
    "Squeeze of everything": ([one("Squeeze")], PAIR, 17, "name the axes"),
    "Squeeze of a size": ([one("Squeeze", ints(1))], PAIR, 17, "size 1"),
    "Unsqueeze of the batch": ([one("Unsqueeze", ints(0))], PAIR, 17, "across the batch"),
    "Transpose of the batch": ([one("Transpose", perm=[1, 0, 2])], PAIR, 17, "first entry must be 0"),
    "Transpose of everything": ([one("Transpose")], PAIR, 17, "first entry must be 0"),
    "ReduceMean of everything": ([one("ReduceMean")], PAIR, 17, "across the batch"),
    "ReduceMean of the batch": ([one("ReduceMean", axes=[-3])], PAIR, 17, "across the batch"),
    "an axis too many": ([one("Gather", ints(0), axis=3)], PAIR, 17, "axis 3 does not exist"),
    "Concat of the batch": ([one("Concat", "x", "x", axis=0)], PAIR, 17, "across the batch"),
    "Concat with a constant": ([one("Concat", "x", arr(1, 1, 3), axis=1)], PAIR, 17, "input 1 must depend"),
    "Slice of the batch": ([one("Slice", ints(0), ints(0), ints(0))], PAIR, 17, "across the batch"),
    "Slice backwards": ([one("Slice", ints(-1), ints(-9), ints(1), ints(-1))], PAIR, 17, "step of -1"),
    "Split of the batch": ([one("Split", ints(1), outputs=["y"])], PAIR, 17, "across the batch"),
    "Gather of the batch": ([one("Gather", ints(0, 0))], PAIR, 17, "across the batch"),
    "Gather of a table": ([one("Gather", ints(0, 1).reshape(1, 2), axis=1)], PAIR, 17, "matrix"),
    "Pad of the batch": ([one("Pad", ints(1, 0, 0, 0, 0, 0))], PAIR, 17, "across the batch"),
    "Pad with ones": ([one("Pad", ints(0, 0, 1, 0, 0, 0), scalar(1.0))], PAIR, 17, "zeros"),
    "Pad by reflection": ([one("Pad", ints(0, 0, 1, 0, 0, 0), mode="reflect")], PAIR, 17, "zeros"),
    "a constant for each sample": ([one("Add", arr(2, 2, 3))], PAIR, 17, "its first size must be 1"),
    "a constant of more axes": ([one("Add", arr(1, 1, 2, 3))], PAIR, 17, "its first size must be 1"),
    "branches of other axes": ([one("ReduceMean", axes=[1], keepdims=0), one("Add", "x", "1")], PAIR, 17, "broadcasts"),
    "a Sum of other axes": ([one("ReduceMean", axes=[1], keepdims=0), one("Sum", "x", "1")], PAIR, 17, "broadcasts"),
    "MaxPool SAME dilations": (
        [one("MaxPool", kernel_shape=[3, 3], auto_pad="SAME_UPPER", dilations=[2, 2])],
        IMAGE,
        17,
        "auto_pad SAME_UPPER with dilations is not supported",
    ),
    "Gemm of A transposed": ([one("Gemm", arr(1, 4), transA=1)], VECTOR, 17, "transA"),
    "Gemm of two branches": ([one("Gemm", arr(4, 4), "x")], VECTOR, 17, "input 1 must be a"),
    "Gemm with weights that vary": ([one("Relu"), one("Gemm", "x", "1", transB=1)], VECTOR, 17, "input 1 must be a"),
    "MatMul over the batch": ([one("MatMul", arr(5, 1), "x")], VECTOR, 17, "across the batch"),
    "MatMul of a vector": ([one("MatMul", arr(4))], VECTOR, 17, "one matrix"),
    "MatMul of many matrices": ([one("MatMul", arr(2, 3, 4))], PAIR, 17, "one matrix"),
    "MatMul that fits nothing": ([one("MatMul", arr(5, 4))], VECTOR, 17, r"'node1' \(MatMul\): it cannot be computed"),
    "Conv of 3 axes": ([one("Conv", arr(2, 2, 1, 1, 1))], (1, 2, 3, 3, 3), 17, "give 1 or 2 axes"),
    "ConvTranspose uneven": ([one("ConvTranspose", arr(3, 2, 3), pads=[0, 1])], SIGNAL, 17, "equal on both sides"),
    "ConvTranspose SAME": ([one("ConvTranspose", arr(3, 2, 3), auto_pad="SAME_UPPER")], SIGNAL, 17, "equal on both"),
    "ConvTranspose to a size": ([one("ConvTranspose", arr(3, 2, 3), output_shape=[11])], SIGNAL, 17, "equal on both"),
    "MaxPool uneven": ([one("MaxPool", kernel_shape=[3], pads=[0, 1])], SIGNAL, 17, "before and"),
    "MaxPool with indices": (
        [one("MaxPool", kernel_shape=[3], outputs=["a", "b"]), one("Cast", "b", to=1)],
        SIGNAL,
        17,
        "'b' is an output",
    ),
    "AveragePool uneven": ([one("AveragePool", kernel_shape=[3], pads=[0, 1])], SIGNAL, 17, "count_include_pad"),
    "AveragePool ceil": ([one("AveragePool", kernel_shape=[2], ceil_mode=1)], SIGNAL, 17, "ceil_mode"),
    "AveragePool dilated": ([one("AveragePool", kernel_shape=[2], dilations=[2])], SIGNAL, 19, "dilations"),
    "BatchNormalization in training": (
        [one("BatchNormalization", *STATISTICS, training_mode=1, outputs=["y", "m", "v"])],
        IMAGE,
        17,
        "eval mode",
    ),
    "BatchNormalization of each pixel": ([one("BatchNormalization", *STATISTICS, spatial=0)], (1, 3), 7, "spatial"),
    "Dropout in training": ([one("Dropout", scalar(0.5), np.array(True))], VECTOR, 17, "eval mode"),
    "Cast to integers": ([one("Cast", to=TensorProto.INT64)], VECTOR, 17, "float32"),
    "an output that is constant": ([("Constant", (), {"value_floats": [1.0]})], VECTOR, 17, "does not depend"),
    "NaN": ([one("MatMul", arr(4, 5) * np.float32("nan"))], VECTOR, 17, r"'node1' \(MatMul\).*NaN"),
    "infinite numbers": ([one("Add", scalar(np.inf))], VECTOR, 17, "infinite"),
    "opset 6": ([one("Relu")], VECTOR, 6, "opset 6 .* 7 to"),
    "an opset of the future": ([one("Relu")], VECTOR, 999, "opset 999"),
    "an operator that ONNX lacks": ([one("Frobnicate")], VECTOR, 17, "Frobnicate"),
    "an input without a batch": ([one("Relu")], (4,), 17, "must be the batch"),
    "an input of one axis": ([one("Relu")], (1,), 17, "must be the batch"),
    "a batch of 2": ([one("Relu")], (2, 4), 17, "must be the batch"),
    "an open size": ([one("Relu")], ("N", "length"), 17, r"'length'.*only the batch"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused(name, write):
    nodes, shape, opset, message = REFUSALS[name]
    path = write(*nodes, shape=shape, opset=opset, output_shape=() if opset > 900 else None)
    with pytest.raises(OnnxError, match=message) as refusal:
        load_onnx(path)
    assert str(refusal.value).startswith(f"{path}: ")


def test_half_precision_is_refused(write):
    path = write(one("Relu"), dtype=TensorProto.FLOAT16)
    with pytest.raises(OnnxError, match="FLOAT16: convert"):
        load_onnx(path)


def test_two_inputs_or_outputs_are_refused(write):
    path = write(one("Relu"))
    file = onnx.load(path)
    file.graph.output.append(file.graph.input[0])
    onnx.save(file, path)
    with pytest.raises(OnnxError, match="one output, this one has 2"):
        load_onnx(path)
    del file.graph.output[1]
    file.graph.input.append(onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, (1, 4)))
    onnx.save(file, path)
    with pytest.raises(OnnxError, match=r"one input, this one has 2 \('x', 'z'\)"):
        load_onnx(path)


def test_operators_of_others_are_refused(write):
    path = write(one("Relu"))
    file = onnx.load(path)
    file.graph.node[0].domain = "com.others"
    file.opset_import.append(onnx.helper.make_opsetid("com.others", 1))
    onnx.save(file, path)
    with pytest.raises(OnnxError, match=r"domain 'com\.others'"):
        load_onnx(path)


def test_an_output_that_the_file_describes_otherwise_is_refused(write):
    with pytest.raises(OnnxError, match=r"'y' has shape \[1, 4\] for one sample, the file says \[1, 5\]"):
        load_onnx(write(one("Relu"), output_shape=(1, 5)))


def test_sparse_weights_are_refused(write):
    path = write(one("Add", scalar(1.0)))
    file = onnx.load(path)
    sparse = file.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(onnx.numpy_helper.from_array(arr(1), "weights"))
    sparse.indices.CopyFrom(onnx.numpy_helper.from_array(ints(2), "places"))
    onnx.save(file, path)
    with pytest.raises(OnnxError, match="dense"):
        load_onnx(path)


@pytest.mark.parametrize("kept", [0, 1, 10, 100, 0.5, 0.99])
def test_damaged_files_are_refused(kept, write):
    path = small(write)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(OnnxError, match=f"{path}: (the file is empty|not an ONNX file, or a damaged one)"):
        load_onnx(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(OnnxError, match="no such file"):
        load_onnx(tmp_path / "missing.onnx")
    with pytest.raises(OnnxError, match="directory"):
        load_onnx(str(tmp_path))
    (tmp_path / "text.onnx").write_text("this is no network")
    with pytest.raises(OnnxError, match="not an ONNX file"):
        load_onnx(tmp_path / "text.onnx")
