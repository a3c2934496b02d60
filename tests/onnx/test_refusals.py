"""What cannot be read is refused, with the node and a remedy."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from tests.onnx.nodes import IMAGE, SIGNAL, STATISTICS, VECTOR, arr, ints, one, scalar, small

from ctbench.onnx import OnnxError, load_onnx
from ctbench.onnx.reading import _check_operators

PAIR = (1, 2, 3)

# name: (nodes, shape of the input, opset, what the message says)
REFUSALS = {
    "an operator without a reading": ([one("Det")], (1, 2, 2), 17, r"'node1' \(Det\): not supported: .*Conv, "),
    "Reshape that does not fit": ([one("Reshape", ints(1, -1, 3, 5))], VECTOR, 17, "cannot be computed"),
    "Squeeze of a size": ([one("Squeeze", ints(1))], PAIR, 17, "size 1"),
    "an axis too many": ([one("Gather", ints(0), axis=3)], PAIR, 17, "axis 3 does not exist"),
    "Concat with several samples": ([one("Concat", "x", arr(2, 1, 3), axis=1)], PAIR, 17, "first size must be 1"),
    "a constant for each sample": ([one("Add", arr(2, 2, 3))], PAIR, 17, "its first size must be 1"),
    "AveragePool SAME dilations": (
        [one("AveragePool", kernel_shape=[3, 3], auto_pad="SAME_LOWER", dilations=[2, 2])],
        IMAGE,
        19,
        "auto_pad SAME_LOWER with dilations is not supported",
    ),
    "MaxPool of padding alone": (
        [one("MaxPool", kernel_shape=[2, 2], pads=[0, 2, 0, 0])],
        IMAGE,
        17,
        r"a window sees only the padding \[0, 2, 0, 0\]: give smaller pads",
    ),
    "MaxPool SAME dilations": (
        [one("MaxPool", kernel_shape=[3, 3], auto_pad="SAME_UPPER", dilations=[2, 2])],
        IMAGE,
        17,
        "auto_pad SAME_UPPER with dilations is not supported",
    ),
    "MaxPool SAME of long strides": (
        [one("MaxPool", kernel_shape=[1], strides=[2], auto_pad="SAME_UPPER")],
        (1, 3, 8),
        17,
        r"auto_pad SAME_UPPER with strides \[2\] above the kernel \[1\] is not supported, .*: give pads",
    ),
    "AveragePool SAME of long strides": (
        [one("AveragePool", kernel_shape=[2], strides=[4], auto_pad="SAME_LOWER")],
        (1, 3, 8),
        17,
        r"auto_pad SAME_LOWER with strides \[4\] above the kernel",
    ),
    "Conv SAME of long strides": (
        [one("Conv", arr(2, 3, 1), strides=[4], auto_pad="SAME_UPPER")],
        (1, 3, 8),
        17,
        r"auto_pad SAME_UPPER with strides \[4\] above the kernel",
    ),
    "Gemm of A transposed": ([one("Gemm", arr(1, 4), transA=1)], VECTOR, 17, "transA"),
    "Gemm of two branches": ([one("Gemm", arr(4, 4), "x")], VECTOR, 17, "input 1 must be a"),
    "Gemm with weights that vary": ([one("Relu"), one("Gemm", "x", "1", transB=1)], VECTOR, 17, "input 1 must be a"),
    "MatMul that fits nothing": ([one("MatMul", arr(5, 4))], VECTOR, 17, r"'node1' \(MatMul\): it cannot be computed"),
    "Conv of 4 axes": ([one("Conv", arr(2, 2, 1, 1, 1, 1))], (1, 2, 3, 3, 3, 3), 17, "give 1 to 3 axes"),
    "an old Softmax of rows without a batch": ([one("Softmax")], (4, 3, 2), 11, "goes over all axes from 2 on"),
    "an old Softmax of several axes": ([one("Softmax")], PAIR, 11, "goes over all axes from 1 on"),
    "Shrink that jumps": ([one("Shrink", lambd=1.0)], PAIR, 17, "bias equal to lambd"),
    "LRN of an even size": ([one("LRN", size=2)], IMAGE, 17, "give an odd size"),
    "TopK in any order": (
        [one("TopK", ints(2), sorted=0, outputs=["a", "b"]), one("Relu", "a")],
        PAIR,
        17,
        "export with sorted=1",
    ),
    "Pow of two values": ([one("Exp"), one("Pow", "1", "x")], PAIR, 17, r"write it as Exp\(Mul\(y, Log"),
    "windows of padding": (
        [one("AveragePool", kernel_shape=[2], pads=[3, 0], dilations=[2], strides=[1])],
        SIGNAL,
        19,
        "give smaller pads",
    ),
    "Expand of the batch": ([one("Expand", ints(2, 2, 3))], PAIR, 17, "stay the batch"),
    "Tile of the batch": ([one("Tile", ints(2, 1, 1))], PAIR, 17, "across the batch"),
    "Resize with antialias": (
        [one("Resize", "x", None, scalar(1.0).repeat(3), mode="linear", antialias=1)],
        PAIR,
        19,
        "without antialias",
    ),
    "MatMul of two vectors": ([one("MatMul", "x", "x")], (1, 1), 17, "matrices of each sample"),
    "ConvTranspose to a large size": (
        [one("ConvTranspose", arr(3, 2, 3), output_shape=[19])],
        SIGNAL,
        17,
        "beyond what the kernel reaches",
    ),
    "MaxPool with indices": (
        [one("MaxPool", kernel_shape=[3], outputs=["a", "b"]), one("Cast", "b", to=1)],
        SIGNAL,
        17,
        "'b' is an output",
    ),
    "BatchNormalization in training": (
        [one("BatchNormalization", *STATISTICS, training_mode=1, outputs=["y", "m", "v"])],
        IMAGE,
        17,
        "eval mode",
    ),
    "BatchNormalization of each pixel": ([one("BatchNormalization", *STATISTICS, spatial=0)], (1, 3), 7, "spatial"),
    "Dropout in training": ([one("Dropout", scalar(0.5), np.array(True))], VECTOR, 17, "eval mode"),
    "Cast to small integers": ([one("Cast", to=TensorProto.INT8)], VECTOR, 17, "give float32, int64 or bool"),
    "whole numbers in a function": (
        [one("Cast", to=TensorProto.INT64), one("Div", "1", ints(2))],
        VECTOR,
        17,
        "cast them to float32 before it",
    ),
    "an output that is constant": ([("Constant", (), {"value_floats": [1.0]})], VECTOR, 17, "does not depend"),
    "NaN": ([one("MatMul", arr(4, 5) * np.float32("nan"))], VECTOR, 17, r"'node1' \(MatMul\).*NaN"),
    "infinite numbers": ([one("Add", scalar(np.inf))], VECTOR, 17, "infinite"),
    "opset 6": ([one("Relu")], VECTOR, 6, "opset 6 .* 7 to"),
    "an opset of the future": ([one("Relu")], VECTOR, 999, "opset 999"),
    "an operator that ONNX lacks": ([one("Frobnicate")], VECTOR, 17, "Frobnicate"),
    "an open size": ([one("Relu")], ("N", "length"), 17, r"'length'.*only the batch"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_refused(name, write):
    nodes, shape, opset, message = REFUSALS[name]
    path = write(*nodes, shape=shape, opset=opset, output_shape=() if opset > 900 else None)
    with pytest.raises(OnnxError, match=message) as refusal:
        load_onnx(path)
    assert str(refusal.value).startswith(f"{path}: ")


def test_integers_are_refused(write):
    path = write(one("Relu"), dtype=TensorProto.INT32)
    with pytest.raises(OnnxError, match="INT32: convert"):
        load_onnx(path)


def test_all_missing_operators_are_listed_with_their_counts(write):
    nodes = (one("Det"), one("Frobnicate", "1"), one("Det", "2"), one("Relu", "3"))
    path = write(one("Relu"))
    file = onnx.load(path)
    del file.graph.node[:]
    names = ["x", "1", "2", "3", "y"]
    for kind, first, second in zip((node[0] for node in nodes), names, names[1:], strict=False):
        file.graph.node.append(onnx.helper.make_node(kind, [first], [second], f"node{second}"))
    with pytest.raises(OnnxError, match=r"supported: Det \(2 times\), Frobnicate \(once\); .* is node 'node1'"):
        _check_operators(file, {"x"})
    del file.graph.node[1]
    file.graph.node[1].input[0] = "1"
    with pytest.raises(OnnxError, match=r"node 'node1' \(Det, 2 times in the file\): not supported"):
        _check_operators(file, {"x"})


def test_a_cycle_is_refused(write):
    path = write(one("Add", "x", "2"), one("Relu", "1"), one("Relu", "2"))
    with pytest.raises(OnnxError, match=r"node 'node1' \(Add\) reads its own output"):
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
