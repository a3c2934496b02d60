"""Files without a batch axis, or with operators that act on it: the module computes what ONNX Runtime computes."""

import numpy as np
import pytest
import torch
from tests.onnx.nodes import VECTOR, arr, assert_close, ints, one

from ctbench.graph import freeze, trace
from ctbench.onnx import load_onnx, replay

PAIR = (1, 2, 3)

# name: (nodes, shape of the input)
CASES = {
    "Flatten of the batch": ([one("Flatten", axis=2)], PAIR),
    "Flatten of everything": ([one("Flatten", axis=0), one("MatMul", "1", arr(6, 2))], PAIR),
    "Reshape of the batch": ([one("Reshape", ints(-1, 3)), one("MatMul", "1", arr(3, 2))], PAIR),
    "Reshape to one axis and back": (
        [one("Reshape", ints(-1)), one("Relu", "1"), one("Reshape", "2", ints(1, 6))],
        PAIR,
    ),
    "Squeeze of the batch": (
        [one("Squeeze", ints(0)), one("Add", "1", arr(2, 3)), one("Unsqueeze", "2", ints(0))],
        PAIR,
    ),
    "Squeeze of everything": ([one("Squeeze")], PAIR),
    "Unsqueeze of the batch": ([one("Unsqueeze", ints(0)), one("Squeeze", "1", ints(1))], PAIR),
    "Transpose of the batch": ([one("Transpose", perm=[1, 0, 2])], PAIR),
    "Transpose of everything": ([one("Transpose"), one("Relu", "1"), one("Transpose", "2")], PAIR),
    "ReduceMean of everything": ([one("ReduceMean")], PAIR),
    "ReduceMean of the batch": ([one("ReduceMean", axes=[-3], keepdims=0)], PAIR),
    "Concat of the batch": ([one("Concat", "x", "x", axis=0)], PAIR),
    "Split of the batch": ([one("Split", ints(1), outputs=["y"])], PAIR),
    "Gather of the batch": ([one("Gather", ints(0)), one("Gather", "1", ints(1, 0), axis=-2)], PAIR),
    "Pad of the batch": ([one("Pad", ints(1, 0, 0, 0, 0, 0))], PAIR),
    "Slice without a batch": ([one("Slice", ints(1), ints(3), ints(-1))], (2, 3)),
    "MatMul from the left": ([one("MatMul", arr(5, 3), "x")], (3,)),
    "MatMul over the batch": ([one("MatMul", arr(5, 1), "x")], VECTOR),
    "MatMul with a vector": ([one("MatMul", arr(4))], VECTOR),
    "MatMul of two vectors": ([one("MatMul", arr(4))], (4,)),
    "a vector times a matrix": ([one("MatMul", arr(2), "x")], PAIR),
    "a dense network of vectors": (
        [one("MatMul", arr(4, 5)), one("Add", "1", arr(5)), one("Relu", "2"), one("MatMul", arr(3, 5), "3")],
        (4,),
    ),
    "a column": ([one("MatMul", arr(5, 4), "x"), one("Add", "1", arr(5, 1)), one("Relu", "2")], (4, 1)),
    "rows as a batch of the file": ([one("Gemm", arr(4, 3), arr(3)), one("Relu", "1")], (2, 4)),
    "an image that gets its batch": ([one("Unsqueeze", ints(0)), one("Conv", "1", arr(2, 3, 2, 2))], (3, 5, 4)),
    "functions of each number": (
        [
            one("Atan"),
            one("Mean", "1", arr(3), arr(2, 1)),
            one("Shrink", "2", bias=0.1, lambd=0.1),
            one("Softplus", "3"),
        ],
        (2, 3),
    ),
    "slopes": ([one("PRelu", arr(2, 1))], (2, 3)),
    "slopes of each number": ([one("PRelu", arr(2, 3))], (2, 3)),
    "powers of each number": ([one("Abs"), one("Pow", "1", np.array([2, 1, 0.5], dtype=np.float32))], (3,)),
    "products and norms": ([one("ReduceProd", axes=[1]), one("ReduceLogSumExp", "1")], (2, 3)),
    "a unit vector": ([one("LpNormalization", axis=0)], (4,)),
    "the greatest of a vector": ([one("TopK", ints(2), outputs=["a", "b"]), one("Relu", "a")], (5,)),
    "Softmax of a vector": ([one("Softmax")], (4,)),
    "Softmax of rows": ([one("Softmax", axis=0), one("LogSoftmax", "1")], (2, 3)),
    "norms": ([one("LayerNormalization", arr(3), arr(3)), one("ReduceL2", "1", axes=[0], keepdims=0)], (2, 3)),
    "attention": (
        [one("Transpose"), one("MatMul", "x", "1"), one("Softmax", "2"), one("MatMul", "3", "x")],
        (4, 3),
    ),
    "one number": ([one("Mul", arr(1)), one("Relu", "1")], (1,)),
}


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_the_file_computes(name, write):
    nodes, shape = CASES[name]
    path = write(*nodes, shape=shape, opset=13 if any("ReduceMean" in node[0] for node in nodes) else 17)
    model = load_onnx(path)
    batched = len(shape) > 1 and shape[0] == 1
    assert model.input_shape == (shape[1:] if batched else shape)
    x = torch.randn(3, *model.input_shape, generator=torch.Generator().manual_seed(0))
    expected = replay(path)(x)
    assert_close(model(x).reshape(3, -1), expected)
    assert_close(model(x[:1]).reshape(1, -1), expected[:1])


@pytest.mark.parametrize("name", ["a dense network of vectors", "a column", "Transpose of the batch"])
def test_it_has_a_graph(name, write):
    nodes, shape = CASES[name]
    path = write(*nodes, one("Flatten", str(len(nodes)), axis=0), shape=shape)
    model = load_onnx(path)
    x = torch.randn(3, *model.input_shape)
    assert_close(freeze(trace(model, model.input_shape), x)[1], replay(path)(x))
