"""What every op must satisfy: a new op needs an example in ops.py."""

import pytest
import torch
from tests.contracts.ops import AFFINE, CURVES, ELEMENTWISE, LAYERS, OPS, build, rand

from ctbench.graph import Affine, Elementwise, Op, lower
from ctbench.graph.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv2d,
    Dropout,
    Input,
    Known,
    Max,
    MeanOfRows,
    Normalised,
    Product,
    Reshape,
)

# neither affine nor elementwise, or known only on some numbers: see test_maximum, test_products and tests/graph
BY_THEMSELVES = {Input, Add, Concat, Conv2d, Max, Product, Known, MeanOfRows, Normalised, BatchNorm, Dropout}


def subclasses(kind: type) -> set[type]:
    """The ops of the library, without the abstract families."""
    kinds = set(kind.__subclasses__())
    kinds |= {sub for child in kinds for sub in subclasses(child)}
    return {c for c in kinds if c.__module__.startswith("ctbench.graph.") and not c.__abstractmethods__}


def test_every_op_has_an_example():
    shown = {type(op) for op, _ in AFFINE.values()} | {type(op) for op in OPS.values()}
    shown |= {type(example.op) for example in CURVES.values()}
    assert subclasses(Op) == shown | BY_THEMSELVES
    assert subclasses(Affine) | subclasses(Elementwise) == shown | {Known}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", LAYERS)
def test_affine_ops_equal_their_layers(name):
    layer, ops, shape = build(name)
    x = rand(3, *shape)
    expected = layer(x)
    for op in ops:
        x, shape = op(x), op.shape(shape)
        assert tuple(x.shape) == (3, *shape)
    torch.testing.assert_close(x, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_ops_equal_their_layers(name):
    op, layer = ELEMENTWISE[name]
    x = 4 * rand(2, 3, 4)
    torch.testing.assert_close(op(x), layer(x), rtol=0, atol=0)
    assert op.shape((3, 4)) == (3, 4)
    assert lower(layer, (3, 4)) == op


def test_joins_refuse_other_shapes():
    with pytest.raises(ValueError, match=r"branches of the same shape, got \(2,\) and \(3,\): expand one"):
        Add().shape((2,), (3,))
    for shapes in [((2, 3), (2, 4)), ((1, 4), (2, 3)), ((2, 3), (2, 3))]:
        with pytest.raises(ValueError, match="cannot be joined in dimension 0"):
            Concat(0, (2, 1)).shape(*shapes)
    assert Concat(0, (2, 1)).shape((2, 3), (1, 3)) == (3, 3)
    assert Max().shape((4, 3, 2)) == (3, 2)


@pytest.mark.parametrize(("dim", "sizes"), [(0, (2, 1)), (1, (3, 1, 2)), (2, (4,))])
def test_the_parts_of_joined_coefficients_belong_to_their_branches(dim, sizes):
    shapes = [tuple(size if place == dim else 4 for place in range(3)) for size in sizes]
    op, branches = Concat(dim, sizes), [rand(2, *shape) for shape in shapes]
    a = rand(2, 3, *op.shape(*shapes))
    whole = (a * op(*branches).unsqueeze(1)).flatten(2).sum(2)
    parts = [(part * branch.unsqueeze(1)).flatten(2).sum(2) for part, branch in zip(op.split(a), branches, strict=True)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=1e-12)


def test_dropout_is_open_until_it_is_frozen():
    op, x = Dropout(0.5), rand(2, 3, 4)
    with pytest.raises(ValueError, match=r"call freeze\(graph, x\) first"):
        op(x)
    with pytest.raises(ValueError, match=r"dropout of rate 0.5 cannot be trained with bounds: .* set p=0"):
        op.freeze(x, training=True)
    assert op.freeze(x, training=False) == Dropout(0.0).freeze(x, training=True) == Reshape((3, 4), (3, 4))
    assert op.shape((3, 4)) == (3, 4)
