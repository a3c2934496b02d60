"""Forms of files: packed, out of order, with external data, of several inputs and outputs, and of mixed precision."""

import gzip

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tests.onnx.nodes import arr, assert_close, ints, one, small

from ctbench.graph import freeze, trace
from ctbench.onnx import OnnxError, load_onnx, replay

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def test_a_packed_file_is_read_and_replayed(write):
    path = small(write)
    packed = path.with_name("packed.onnx.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    x = torch.rand(2, 3, 7, 6)
    assert torch.equal(load_onnx(packed)(x), load_onnx(path)(x))
    assert torch.equal(replay(packed)(x), replay(path)(x))
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(OnnxError, match=r"packed\.onnx\.gz: not a complete gzip file"):
        load_onnx(packed)


def test_external_data_are_read(write):
    path = small(write)
    x, expected = torch.rand(2, 3, 7, 6), load_onnx(path)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert path.with_name("weights.bin").is_file()
    assert torch.equal(load_onnx(path)(x), expected(x))
    path.with_name("weights.bin").unlink()
    with pytest.raises(OnnxError, match="breaks the rules of ONNX"):
        load_onnx(path)


def test_nodes_may_stand_in_any_order(write):
    path = write(one("MatMul", arr(4, 5)), one("Relu", "1"), one("Add", "1", "2"), one("MatMul", "3", arr(5, 2)))
    expected, file = load_onnx(path)(X), onnx.load(path)
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        mixed = onnx.ModelProto.FromString(file.SerializeToString())
        del mixed.graph.node[:]
        mixed.graph.node.extend(file.graph.node[place] for place in order)
        onnx.save(mixed, path)
        assert torch.equal(load_onnx(path)(X), expected)


@pytest.fixture
def wide(tmp_path):
    """A file of two inputs and two outputs."""
    inputs = [("image", (1, 2, 2)), ("facts", (1, 3))]
    outputs = [("logits", (1, 5)), ("grid", (1, 2, 2))]
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Concat", ["flat", "facts"], ["all"], axis=1),
        helper.make_node("MatMul", ["all", "w"], ["logits"]),
        helper.make_node("Relu", ["image"], ["grid"]),
    ]
    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in each] for each in (inputs, outputs)]
    weights = [onnx.numpy_helper.from_array(arr(7, 5), "w")]
    model = helper.make_model(
        helper.make_graph(nodes, "wide", *infos, weights), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 8
    onnx.save(model, tmp_path / "wide.onnx")
    return tmp_path / "wide.onnx"


def test_inputs_and_outputs_follow_one_another(wide):
    model, x = load_onnx(wide), torch.randn(3, 7)
    assert (model.input_shape, model.output_shape) == ((7,), (9,))
    assert_close(model(x), replay(wide)(x))


def test_inputs_and_outputs_are_chosen_by_name(wide):
    x = torch.randn(3, 7)
    turned = torch.cat([x[:, 4:], x[:, :4]], dim=1)
    for outputs in (("logits",), ("grid", "logits")):
        model = load_onnx(wide, inputs=("facts", "image"), outputs=outputs)
        expected = replay(wide, inputs=("facts", "image"), outputs=outputs)(turned)
        assert_close(model(turned), expected)
        assert_close(replay(wide, outputs=outputs)(x), expected)
    model = load_onnx(wide, outputs=("logits",), given={"facts": torch.ones(1, 3)})
    assert model.input_shape == (2, 2)
    together = torch.cat([x[:, :4], torch.ones(3, 3)], dim=1)
    x = x[:, :4].view(3, 2, 2)
    assert_close(model(x), replay(wide, outputs=("logits",))(together))
    assert_close(freeze(trace(model, (2, 2)), x)[1].detach(), model(x).detach())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": ("image",)}, "the input 'facts' has no value: name it in inputs, or give"),
        ({"inputs": ("image", "facts", "w")}, "'w' is not an input: the file has 'image', 'facts'"),
        ({"outputs": ("flat",)}, "'flat' is not an output: the file has 'logits', 'grid'"),
        ({"outputs": ("grid", "grid")}, r"the names of outputs are \['grid', 'grid'\]"),
        ({"outputs": ()}, r"the names of outputs are \[\]"),
        (
            {"given": {"image": torch.ones(2, 2)}},
            r"input 'image' has shape \[2, 2\], the file says \[1, 2, 2\]",
        ),
        ({"given": {"other": torch.ones(1)}}, "'other' is not an input: the file has 'image', 'facts'"),
        ({"given": {"facts": torch.ones(1, 3)}, "inputs": ("facts",)}, "'facts' is not an input"),
    ],
)
def test_other_names_are_refused(wide, options, message):
    with pytest.raises(OnnxError, match=message):
        load_onnx(wide, **options)


def test_half_precision_becomes_single(write):
    path = write(one("MatMul", arr(4, 3).astype(np.float16)), dtype=TensorProto.FLOAT16)
    model = load_onnx(path)
    assert model(X).dtype == torch.float32
    assert_close(model(X).half(), replay(path)(X.half()), 1e-2)


def test_casts_between_floating_point_types_are_the_identity(write):
    wide = arr(4, 3).astype(np.float64)
    path = write(
        one("Cast", to=TensorProto.DOUBLE),
        one("MatMul", "1", wide + 2.0**-40),
        one("Cast", "2", to=TensorProto.FLOAT),
        one("MatMul", "3", arr(3, 2)),
    )
    model = load_onnx(path)
    assert next(model.parameters()).dtype == torch.float64  # the weights need it
    assert_close(model(X.double()).float(), replay(path)(X))
    nodes = one("Cast", to=TensorProto.DOUBLE), one("MatMul", "1", wide), one("Cast", "2", to=TensorProto.FLOAT)
    single = load_onnx(write(*nodes))
    assert next(single.parameters()).dtype == torch.float32  # the weights are single precision numbers


def test_constants_are_evaluated_by_any_operator(write):
    path = write(
        ("Pow", (np.abs(arr(4, 3)), arr(1)), {}),
        ("Softmax", ("1",), {"axis": 0}),
        ("ReduceSum", ("2", ints(1)), {"keepdims": 0}),
        one("Add", "x", "3"),
    )
    assert_close(load_onnx(path)(X), replay(path)(X))


@pytest.mark.parametrize("opset", [7, 9, 11, 13, 18, 20, 22])
def test_opsets(write, opset):
    nodes = [
        one("Flatten"),
        one("Gemm", "1", arr(5, 4), arr(5), transB=1),
        one("Relu", "2"),
        one("Transpose", "3", perm=[0, 1]),
    ]
    path = write(*nodes, opset=opset)
    assert_close(load_onnx(path)(X), replay(path)(X))
