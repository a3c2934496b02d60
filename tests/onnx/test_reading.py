"""A file that is read is a torch module: its outputs, weights, names and copies, and its bounds."""

import copy
import io
import pickle

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from tests.onnx.nodes import (
    IMAGE,
    STATISTICS,
    VECTOR,
    arr,
    assert_close,
    one,
    rng,
    small,
)
from torch import nn

from ctbench import bounds
from ctbench.graph import Precisions, freeze, trace
from ctbench.onnx import OnnxError, OnnxNetwork, load_onnx
from ctbench.regions import Linf

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
    op = Precisions.of(model, torch.zeros(VECTOR)).proof.nodes[-1].op
    assert np.array_equal(op.weight.numpy(), alpha * weight)
    assert np.array_equal(op.bias.numpy(), beta * bias)
    other = load_onnx(write(one("Gemm", weight, bias, transB=1, beta=0.3), shape=VECTOR))
    assert np.array_equal(Precisions.of(other, torch.zeros(VECTOR)).proof.nodes[-1].op.bias.numpy(), beta * bias)


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


# ----------------------------------------------------------------------------------------- as a torch module


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
