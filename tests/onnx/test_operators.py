"""Every operator computes what ONNX Runtime computes, for any batch, and so does its graph."""

import copy
import math

import numpy as np
import pytest
import torch
from onnx import TensorProto
from tests.onnx.nodes import (
    IMAGE,
    SIGNAL,
    STATISTICS,
    VECTOR,
    arr,
    assert_close,
    ints,
    one,
    positive,
    scalar,
    singles,
)
from torch import nn

from ctbench import bounds
from ctbench.graph import Precisions, freeze, trace
from ctbench.graph.ops import AlongAxis
from ctbench.onnx import load_onnx
from ctbench.onnx.table import OPERATORS
from ctbench.regions import Box


def single(name: str) -> tuple:
    return one("Cast", name, to=TensorProto.FLOAT)


def recurrent(kind: str, gates: int, *rest, directions: int = 1, **attributes) -> list:
    """A recurrent operator on sequences [1, 3, 6], with hidden states of size 5."""
    weights = (arr(directions, gates * 5, 6), arr(directions, gates * 5, 5))
    return [
        one("Transpose", perm=[1, 0, 2]),
        one(kind, "1", *weights, *rest, hidden_size=5, outputs=["a"], **attributes),
        one("Transpose", "a", perm=[2, 0, 1, 3]),
    ]


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
    "Conv SAME that skips an entry": (
        [one("Conv", arr(4, 3, 1, 2), auto_pad="SAME_LOWER", strides=[2, 4])],
        (1, 3, 8, 8),
        17,
    ),
    "MaxPool with pads in the place of SAME": (
        [one("MaxPool", kernel_shape=[1, 2], pads=[0, 0, 0, 0], strides=[2, 3])],
        (1, 3, 8, 9),
        17,
    ),
    "Conv 1d SAME_UPPER": ([one("Conv", arr(4, 3, 4), auto_pad="SAME_UPPER", strides=[2])], SIGNAL, 17),
    "ConvTranspose": (
        [one("ConvTranspose", arr(3, 2, 3, 3), arr(2), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0])],
        IMAGE,
        17,
    ),
    "ConvTranspose group": ([one("ConvTranspose", arr(3, 2, 2, 3), group=3, dilations=[2, 1])], IMAGE, 17),
    "ConvTranspose uneven": ([one("ConvTranspose", arr(3, 2, 3), pads=[0, 1])], SIGNAL, 17),
    "ConvTranspose SAME_UPPER": (
        [one("ConvTranspose", arr(3, 2, 3, 2), auto_pad="SAME_UPPER", strides=[2, 1])],
        IMAGE,
        17,
    ),
    "ConvTranspose to a size": ([one("ConvTranspose", arr(3, 2, 3), output_shape=[18], strides=[2])], SIGNAL, 17),
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
    "BatchNormalization of volumes": ([one("BatchNormalization", *STATISTICS)], (1, 3, 2, 2, 2), 15),
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
    "MaxPool 3d": ([one("MaxPool", kernel_shape=[2, 2, 1], pads=[1, 0, 0, 1, 1, 0])], (1, 3, 2, 4, 3), 17),
    "MatMul by matrices": ([one("MatMul", arr(3, 6, 2))], IMAGE, 17),
    "MatMul by matrices from the left": ([one("MatMul", arr(1, 3, 4, 7), "x")], IMAGE, 17),
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
    "AveragePool uneven, without the pads": ([one("AveragePool", kernel_shape=[3, 3], pads=[0, 1, 2, 1])], IMAGE, 17),
    "AveragePool SAME_LOWER": (
        [one("AveragePool", kernel_shape=[2, 3], strides=[2, 2], auto_pad="SAME_LOWER")],
        IMAGE,
        17,
    ),
    "AveragePool rounded up": (
        [one("AveragePool", kernel_shape=[3, 2], strides=[3, 4], ceil_mode=1)],
        IMAGE,
        19,
    ),
    "AveragePool rounded up, padded": (
        [one("AveragePool", kernel_shape=[3, 3], strides=[2, 4], pads=[1, 0, 1, 0], ceil_mode=1)],
        IMAGE,
        19,
    ),
    "AveragePool rounded up, counting the pads": (
        [one("AveragePool", kernel_shape=[3], strides=[2], pads=[0, 1], ceil_mode=1, count_include_pad=1)],
        SIGNAL,
        19,
    ),
    "AveragePool dilated": (
        [one("AveragePool", kernel_shape=[2, 3], dilations=[3, 2], pads=[1, 2, 0, 1], strides=[2, 1])],
        IMAGE,
        19,
    ),
    "AveragePool dilated, counting the pads": (
        [one("AveragePool", kernel_shape=[3], dilations=[3], pads=[2, 1], count_include_pad=1)],
        SIGNAL,
        19,
    ),
    "MaxPool uneven, rounded up": (
        [one("MaxPool", kernel_shape=[4], strides=[3], pads=[0, 2], ceil_mode=1), one("ReduceMean", "1", axes=[2])],
        (1, 3, 6),
        17,
    ),
    "MaxPool with wide pads, rounded up": (
        [one("MaxPool", kernel_shape=[3], strides=[3], pads=[2, 2], ceil_mode=1), one("ReduceMean", "1", axes=[2])],
        (1, 3, 6),
        17,
    ),
    "MaxPool uneven, dilated": (
        [one("MaxPool", kernel_shape=[3, 2], pads=[0, 1, 2, 0], dilations=[2, 3], strides=[1, 2])],
        IMAGE,
        17,
    ),
    "MaxPool uneven, dilated, rounded up": (
        [one("MaxPool", kernel_shape=[3], pads=[0, 1], dilations=[2], strides=[3], ceil_mode=1)],
        SIGNAL,
        17,
    ),
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
            single("5"),
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
    "GatherElements": (
        [one("GatherElements", ints(*range(-6, 6)).repeat(14).reshape(1, 4, 7, 6)[:, ::-1] % 3 - 1, axis=1)],
        IMAGE,
        17,
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
    # functions of one variable
    **{
        kind: ([one(kind)], IMAGE, 18)
        for kind in ("Celu", "Cos", "Elu", "Erf", "Exp", "HardSigmoid", "HardSwish", "Mish", "Selu", "Sin", "Softplus")
    },
    **{kind: ([one(kind)], IMAGE, 17) for kind in ("Atan", "Ceil", "Floor", "Sign", "Softsign")},
    "Tan": ([one("Mul", scalar(0.2)), one("Tan", "1")], IMAGE, 17),
    "Log": ([one("Abs"), one("Add", "1", scalar(0.5)), one("Log", "2")], IMAGE, 17),
    "Sqrt": ([one("Abs"), one("Add", "1", scalar(0.5)), one("Sqrt", "2")], IMAGE, 17),
    "Reciprocal": ([one("Abs"), one("Add", "1", scalar(0.5)), one("Reciprocal", "2")], IMAGE, 17),
    "Elu alpha": ([one("Elu", alpha=0.5)], IMAGE, 17),
    "Celu alpha": ([one("Celu", alpha=0.5)], IMAGE, 17),
    "HardSigmoid alpha beta": ([one("HardSigmoid", alpha=0.25, beta=0.75)], IMAGE, 17),
    "Selu alpha gamma": ([one("Selu", alpha=0.5, gamma=2.0)], IMAGE, 17),
    "PRelu": ([one("PRelu", arr(3, 1, 1))], IMAGE, 17),
    "PRelu of each entry": ([one("PRelu", arr(3, 7, 6))], IMAGE, 17),
    "PRelu of columns": ([one("PRelu", arr(6))], IMAGE, 17),
    "PRelu of one slope": ([one("PRelu", arr(1))], IMAGE, 17),
    "Shrink": ([one("Shrink", lambd=0.25, bias=0.25)], IMAGE, 17),
    "Pow": ([one("Pow", scalar(2.0)), one("Pow", "1", scalar(1.5))], IMAGE, 17),
    # softmax and normalisation
    "a mask before a Softmax": (
        [one("Add", np.where(np.tri(7, 6) > 0, arr(7, 6), -np.inf).astype(np.float32)), one("Softmax", "1", axis=-1)],
        IMAGE,
        17,
    ),
    "a choice of -inf before a Softmax": (
        [one("Where", np.tri(7, 6) > 0, "x", scalar(-np.inf)), one("Softmax", "1", axis=-1)],
        IMAGE,
        17,
    ),
    "Softmax": ([one("Softmax", axis=1)], IMAGE, 17),
    "an old Softmax of vectors": ([one("Softmax")], VECTOR, 11),
    "an old Softmax of the last axis": ([one("Softmax", axis=3), one("LogSoftmax", "1", axis=-1)], IMAGE, 11),
    "an old Softmax of an axis before one of size 1": ([one("Softmax")], (1, 5, 1), 11),
    "Softmax of the last axis": ([one("Softmax")], IMAGE, 17),
    "Softmax of vectors": ([one("Softmax")], VECTOR, 17),
    "LogSoftmax": ([one("LogSoftmax", axis=-1)], VECTOR, 17),
    "LayerNormalization": ([one("LayerNormalization", arr(6), arr(6))], IMAGE, 17),
    "LayerNormalization of two axes": ([one("LayerNormalization", arr(7, 6), axis=2, epsilon=0.01)], IMAGE, 17),
    "InstanceNormalization": ([one("InstanceNormalization", arr(3), arr(3))], IMAGE, 17),
    "GroupNormalization": ([one("GroupNormalization", arr(4), arr(4), num_groups=2)], (1, 4, 3, 2), 21),
    # products, reductions
    "Mul of two values": ([one("Tanh"), one("Mul", "x", "1")], IMAGE, 17),
    "Div of two values": ([one("Exp"), one("Div", "x", "1")], IMAGE, 17),
    "Div of a constant": ([one("Exp"), one("Div", arr(1, 3, 1, 1), "1")], IMAGE, 17),
    "Sub that broadcasts": ([one("ReduceMean", axes=[1]), one("Sub", "x", "1")], IMAGE, 17),
    "MatMul of two values": ([one("Transpose", perm=[0, 1, 3, 2]), one("MatMul", "x", "1")], IMAGE, 17),
    "MatMul of a vector": ([one("MatMul", arr(6))], IMAGE, 17),
    "Einsum": ([one("Einsum", "x", "x", equation="bcij,bckj->bcik")], IMAGE, 17),
    "ReduceSum": ([one("ReduceSum", ints(2), keepdims=0)], IMAGE, 17),
    "ReduceMin": ([one("ReduceMin", axes=[1])], IMAGE, 17),
    "ReduceL1": ([one("ReduceL1", axes=[2, 3])], IMAGE, 17),
    "ReduceL2": ([one("ReduceL2", axes=[-1], keepdims=0)], IMAGE, 17),
    "ReduceProd": ([one("ReduceProd", axes=[1, -1])], IMAGE, 17),
    "ReduceProd without its axis": ([one("ReduceProd", ints(2), keepdims=0)], IMAGE, 18),
    "ReduceLogSum": ([one("Abs"), one("ReduceLogSum", "1", ints(1))], IMAGE, 18),
    "ReduceLogSumExp": ([one("ReduceLogSumExp", axes=[2, 3], keepdims=0)], IMAGE, 17),
    "LpNormalization": ([one("LpNormalization"), one("LpNormalization", "1", axis=1, p=1)], IMAGE, 17),
    "LRN": ([one("LRN", size=3, alpha=0.5, beta=0.5, bias=2.0)], IMAGE, 17),
    "Pow of exponents of their own": ([one("Abs"), one("Pow", "1", singles(0, 1, 2, 3, 2, 0.5))], IMAGE, 17),
    "Pow of two values, as its message says": (
        [
            *(one("Abs"), one("Add", "1", scalar(0.5)), one("Log", "2"), one("Mul", "x", "3"), one("Exp", "4")),
        ],
        IMAGE,
        17,
    ),
    "MaxPool SAME with dilations, as its message says": (
        [one("MaxPool", kernel_shape=[3, 3], dilations=[2, 2], pads=[2, 2, 2, 2])],
        IMAGE,
        17,
    ),
    "Pad with negative pads, as its message says": (
        [one("Slice", ints(1), ints(99), ints(3)), one("Pad", "1", ints(0, 0, 0, 0, 0, 0, 0, 2), mode="edge")],
        IMAGE,
        17,
    ),
    "Pow of a constant": ([one("Pow", positive(1, 3, 1, 1), "x")], IMAGE, 17),
    "TopK": ([one("TopK", ints(2), axis=2, outputs=["a", "b"]), one("Relu", "a")], IMAGE, 17),
    "TopK of the smallest": ([one("TopK", ints(4), largest=0, outputs=["a", "b"]), one("Relu", "a")], IMAGE, 17),
    "TopK by attributes": ([one("TopK", axis=1, k=1, outputs=["a", "b"]), one("Relu", "a")], IMAGE, 9),
    "places of TopK": ([one("TopK", ints(3), axis=1, outputs=["a", "b"]), single("b")], IMAGE, 17),
    "ReduceSumSquare": ([one("ReduceSumSquare", axes=[1])], IMAGE, 17),
    "Max": ([one("Neg"), one("Max", "x", "1", scalar(0.25))], IMAGE, 17),
    "Min": ([one("Min", arr(1, 3, 1, 1), "x")], IMAGE, 17),
    "Mean": ([one("Neg"), one("Exp"), one("Mean", "x", "1", "2")], IMAGE, 17),
    "Sum with a constant": ([one("Sum", "x", arr(1, 3, 1, 1), "x")], IMAGE, 17),
    "GlobalMaxPool": ([one("GlobalMaxPool")], IMAGE, 17),
    "CumSum": ([one("CumSum", np.array(2))], IMAGE, 17),
    "CumSum without itself": (
        [one("CumSum", np.array(1), exclusive=1), one("CumSum", "1", np.array(3), exclusive=1, reverse=1)],
        IMAGE,
        17,
    ),
    "CumSum in reverse": ([one("CumSum", np.array(-1), reverse=1)], IMAGE, 17),
    # moves
    "Expand": ([one("Unsqueeze", ints(1)), one("Expand", "1", ints(1, 2, 3, 7, 6))], IMAGE, 17),
    "Tile": ([one("Tile", ints(1, 2, 1, 3))], IMAGE, 17),
    "DepthToSpace": ([one("Tile", ints(1, 4, 1, 1)), one("DepthToSpace", "1", blocksize=2)], IMAGE, 17),
    "DepthToSpace CRD": ([one("Tile", ints(1, 4, 1, 1)), one("DepthToSpace", "1", blocksize=2, mode="CRD")], IMAGE, 17),
    "SpaceToDepth": ([one("SpaceToDepth", blocksize=2)], (1, 3, 4, 6), 17),
    "Resize nearest": (
        [
            one(
                *("Resize", "x", None, singles(1, 1, 2, 2)),
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ],
        IMAGE,
        17,
    ),
    "Resize nearest by half pixels": ([one("Resize", "x", None, singles(1, 1, 1.5, 0.5))], IMAGE, 17),
    "Resize nearest to sizes": ([one("Resize", "x", None, None, ints(1, 3, 5, 9))], IMAGE, 17),
    "Resize linear": ([one("Resize", "x", None, singles(1, 1, 2, 2), mode="linear")], IMAGE, 17),
    "Resize linear with corners": (
        [
            one(
                *("Resize", "x", None, None, ints(1, 3, 5, 9)),
                mode="linear",
                coordinate_transformation_mode="align_corners",
            )
        ],
        IMAGE,
        17,
    ),
    "Resize by cubes": ([one("Resize", "x", None, singles(1, 1, 2, 1.5), mode="cubic")], IMAGE, 17),
    "Resize by cubes inside": (
        [one("Resize", "x", None, singles(1, 1, 0.8, 2), mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1)],
        IMAGE,
        17,
    ),
    "Resize of some axes": ([one("Resize", "x", None, singles(2, 0.5), axes=[3, 2], mode="linear")], IMAGE, 18),
    "Upsample": ([one("Upsample", singles(1, 1, 2, 3))], IMAGE, 9),
    "Concat with a constant": ([one("Concat", arr(1, 2, 7, 6), "x", arr(1, 1, 7, 6), axis=1)], IMAGE, 17),
    "Slice backwards": ([one("Slice", ints(-1), ints(-99), ints(2), ints(-1))], IMAGE, 17),
    "Gather of a table": ([one("Gather", ints(0, 2, 1, 0).reshape(2, 2), axis=1)], IMAGE, 17),
    "Pad with ones": ([one("Pad", ints(0, 0, 1, 0, 0, 1, 2, 3), scalar(1.0))], IMAGE, 17),
    "Pad by reflection": ([one("Pad", ints(0, 0, 1, 2, 0, 1, 0, 3), mode="reflect")], IMAGE, 17),
    "Pad by edges": ([one("Pad", ints(0, 2, 1, 2, 0, 1, 0, 3), mode="edge")], IMAGE, 17),
    "MaxPool SAME_UPPER, uneven": (
        [one("MaxPool", kernel_shape=[3, 2], strides=[2, 2], auto_pad="SAME_UPPER")],
        (1, 3, 6, 5),
        17,
    ),
    "Conv 3d": ([one("Conv", arr(4, 3, 1, 2, 2), arr(4), pads=[0, 1, 0, 0, 1, 0])], (1, 3, 2, 4, 3), 17),
    "ConvTranspose 3d": ([one("ConvTranspose", arr(3, 2, 1, 2, 2), strides=[1, 2, 1])], (1, 3, 2, 4, 3), 17),
    "AveragePool 3d": ([one("AveragePool", kernel_shape=[2, 2, 1])], (1, 3, 2, 4, 3), 17),
    # comparisons, choices, whole numbers
    "ArgMax": ([one("ArgMax", axis=1), single("1")], IMAGE, 17),
    "ArgMax, the last one": (
        [
            one("Round"),
            one("ArgMax", "1", axis=-1, keepdims=0, select_last_index=1),
            single("2"),
        ],
        IMAGE,
        17,
    ),
    "ArgMin": ([one("ArgMin", axis=2), single("1")], IMAGE, 17),
    "OneHot": (
        [one("ArgMax", axis=1, keepdims=0), one("OneHot", "1", np.array(3), singles(-1, 2), axis=1)],
        IMAGE,
        17,
    ),
    "OneHot from the end": (
        [one("ArgMax", axis=1, keepdims=0), one("Neg", "1"), one("OneHot", "2", np.array(3), singles(0, 1))],
        IMAGE,
        17,
    ),
    **{
        kind: ([one(kind, "x", scalar(0.25)), single("1")], IMAGE, 17)
        for kind in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    },
    "Equal": (
        [
            one("Cast", to=TensorProto.INT32),
            one("Equal", "1", np.array(0, dtype=np.int32)),
            single("2"),
        ],
        IMAGE,
        17,
    ),
    **{
        kind: (
            [
                one("Greater", "x", scalar(0.0)),
                one("Less", "x", scalar(0.5)),
                one(kind, "1", "2"),
                single("3"),
            ],
            IMAGE,
            17,
        )
        for kind in ("And", "Or", "Xor")
    },
    "Not": ([one("Greater", "x", scalar(0.0)), one("Not", "1"), single("2")], IMAGE, 17),
    "Where": ([one("Greater", "x", scalar(0.0)), one("Neg"), one("Where", "1", "x", "2")], IMAGE, 17),
    "Where by a constant": ([one("Where", arr(3, 7, 6) > 0, "x", scalar(-2.0))], IMAGE, 17),
    "Round": ([one("Round")], IMAGE, 17),
    "CastLike": ([one("Round"), one("CastLike", "1", scalar(0.0)), one("Relu", "2")], IMAGE, 17),
    "a sum of whole numbers": (
        [
            one("Cast", to=TensorProto.INT64),
            one("ReduceSum", "1", ints(1)),
            one("Add", "2", ints(3)),
            single("3"),
        ],
        IMAGE,
        17,
    ),
    # recurrent networks
    "RNN": (recurrent("RNN", 1), (1, 3, 6), 17),
    "RNN of ReLUs": (recurrent("RNN", 1, arr(1, 10), activations=["Relu"], direction="reverse"), (1, 3, 6), 7),
    "GRU": (recurrent("GRU", 3, arr(1, 30)), (1, 3, 6), 14),
    "GRU from a state": (
        [
            *recurrent("GRU", 3, arr(2, 30), None, arr(2, 1, 5), directions=2, direction="bidirectional")[:2],
            one("Transpose", "a", perm=[2, 0, 1, 3]),
        ],
        (1, 3, 6),
        17,
    ),
    "GRU like torch's": (recurrent("GRU", 3, arr(1, 30), linear_before_reset=1), (1, 3, 6), 17),
    "LSTM": (recurrent("LSTM", 4, arr(1, 40)), (1, 3, 6), 17),
    "LSTM of both directions": (
        recurrent(*("LSTM", 4, arr(2, 40), None, arr(2, 1, 5), arr(2, 1, 5)), directions=2, direction="bidirectional"),
        (1, 3, 6),
        22,
    ),
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
