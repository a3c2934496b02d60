"""Affine ops: the linear part, its transpose and its absolute value, the offset; and ops that only move entries."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from tests.contracts.intervals import RANDOM
from tests.contracts.ops import AFFINE, rand
from torch import Tensor

from ctbench.graph.ops import Reshape, Select, rearrangement


@pytest.mark.parametrize("name", AFFINE)
def test_the_linear_part_is_what_is_left_without_the_offset(name):
    op, shape = AFFINE[name]
    x = rand(3, *shape)
    torch.testing.assert_close(op.linear(x), op(x) - op(0 * x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", AFFINE)
def test_the_adjoint_is_the_transpose(name):
    op, shape = AFFINE[name]
    x, a = rand(2, *shape), rand(2, 4, *op.shape(shape))
    carried = op.adjoint(a)
    assert carried.shape == (2, 4, *shape)
    value = (a * op.linear(x).unsqueeze(1)).flatten(2).sum(2)
    torch.testing.assert_close((carried * x.unsqueeze(1)).flatten(2).sum(2), value, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize(("samples", "forms"), [(0, 3), (2, 0), (0, 0)])
def test_no_samples_and_no_forms_have_their_shapes(name, samples, forms):
    """A search asks for the bounds of the open samples, even if there are none."""
    op, shape = AFFINE[name]
    out = op.shape(shape)
    for output in (op(rand(samples, *shape)), op.linear(rand(samples, *shape)), op.magnitude(rand(samples, *shape))):
        assert output.shape == (samples, *out)
    assert op.adjoint(rand(samples, forms, *out)).shape == (samples, forms, *shape)
    offset = op.offset(rand(samples, forms, *out))
    assert isinstance(offset, float) or offset.shape == (samples, forms)


@pytest.mark.parametrize("name", AFFINE)
def test_the_offset_is_the_value_of_a_form_at_zero(name):
    op, shape = AFFINE[name]
    a = rand(2, 4, *op.shape(shape))
    expected = (a * op(torch.zeros(2, *shape).double()).unsqueeze(1)).flatten(2).sum(2)
    torch.testing.assert_close(op.offset(a) + torch.zeros_like(expected), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", AFFINE)
def test_the_magnitude_is_the_absolute_matrix(name):
    op, shape = AFFINE[name]
    size = math.prod(shape)
    columns = op.linear(torch.eye(size, dtype=torch.float64).view(size, *shape))
    r = rand(2, *shape).abs()
    expected = (r.flatten(1) @ columns.abs().flatten(1)).view(2, *op.shape(shape))
    torch.testing.assert_close(op.magnitude(r), expected, rtol=1e-11, atol=1e-11)
    entries = columns.flatten(1) != 0
    assert op.mixes or bool((entries.sum(0) <= 1).all())


@pytest.mark.parametrize("name", AFFINE)
def test_map_reaches_every_tensor(name):
    op, shape = AFFINE[name]
    single = op.map(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
    assert single(rand(2, *shape).float()).dtype == torch.float32
    assert op(rand(2, *shape)).dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("linear", (4,), r"takes 5 features, its input has shape \(4,\)"),
        ("conv", (3, 4, 4), r"takes \(2, height, width\), its input has shape \(3, 4, 4\)"),
        ("conv", (8,), r"takes \(2, height, width\), its input has shape \(8,\)"),
        ("conv without bias", (2, 2, 5), r"a window of \(3, 3\) does not fit into \(2, 5\)"),
        ("transposed conv", (3, 4, 4), r"takes \(2, height, width\), its input has shape \(3, 4, 4\)"),
        ("average pooling", (8,), r"takes \(channels, height, width\), its input has shape \(8,\)"),
        ("average pooling", (2, 1, 4), "does not fit"),
        ("adaptive pooling", (8,), r"takes \(channels, height, width\), its input has shape \(8,\)"),
        ("normalise", (3, 2, 2), "factors of shape"),
        ("normalise", (1, 2, 2), "factors of shape"),
        ("normalise", (2, 2), "factors of shape"),
        ("shift", (2, 2), r"a shift of shape \(3, 1\) does not fit inputs of shape \(2, 2\)"),
        ("shift", (1, 2), "a shift of shape"),
        ("shift", (3,), "a shift of shape"),
        ("reflection", (2, 2, 2), r"takes \(2, 3, 2\), its input has shape \(2, 2, 2\)"),
        ("flatten", (5,), r"\(5,\) cannot be reshaped to \(12,\)"),
    ],
)
def test_affine_ops_refuse_other_shapes(name, shape, message):
    with pytest.raises(ValueError, match=message):
        AFFINE[name][0].shape(shape)


def test_reshape_to_two_dimensions():
    op = Reshape((12,), (3, 4))
    a = rand(2, 5, 3, 4)
    assert op.shape((12,)) == (3, 4)
    torch.testing.assert_close(op.adjoint(a), a.flatten(2), rtol=0, atol=0)


@RANDOM(max_examples=40)
@given(data=st.data(), size=st.integers(1, 6), shape=st.lists(st.integers(1, 4), min_size=1, max_size=3))
def test_any_choice_of_entries(data, size, shape):
    """Entries may come once, often or never; the number after the last is a zero."""
    chosen = data.draw(st.lists(st.integers(0, size), min_size=math.prod(shape), max_size=math.prod(shape)))
    op = Select(torch.tensor(chosen).view(shape), (size,))
    x, a = rand(2, size), rand(2, 3, *shape)
    matrix = F.one_hot(torch.tensor(chosen), size + 1)[:, :size].double()
    torch.testing.assert_close(op(x).flatten(1), x @ matrix.T, rtol=0, atol=0)
    torch.testing.assert_close(op.magnitude(x.abs()).flatten(1), x.abs() @ matrix.T, rtol=0, atol=0)
    torch.testing.assert_close(op.adjoint(a), a.flatten(2) @ matrix, rtol=1e-14, atol=1e-14)
    assert op.shape((size,)) == tuple(shape)


STEPS = {
    "turn": lambda x: x.transpose(1, 2),
    "flip": lambda x: x.flip(2),
    "roll": lambda x: x.roll((1, -1), (1, 2)),
    "cut": lambda x: x[:, -2:, :3],
    "every other": lambda x: x[:, ::2],
    "double": lambda x: torch.cat([x, x], 2),
    "zeros": lambda x: F.pad(x, (1, 0, 0, 1)),
    "ones": lambda x: F.pad(x, (0, 1), value=1.0),
    "reshape": lambda x: x.flatten(1).unsqueeze(1),
}


@RANDOM(max_examples=60)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=5))
@example(steps=["turn", "turn"])
@example(steps=["reshape"])
def test_any_rearrangement(steps):
    def function(x: Tensor) -> Tensor:
        for step in steps:
            x = STEPS[step](x)
        return x

    ops = rearrangement(function, (3, 2))
    x = rand(4, 3, 2)
    expected = function(x)
    for op in ops:
        x = op(x)
    torch.testing.assert_close(x, expected, rtol=0, atol=0)
    in_order = torch.equal(function(torch.arange(6.0).view(1, 3, 2)).flatten(), torch.arange(6.0))
    assert (type(ops[0]) is Reshape) == in_order
    assert len(ops) == 1 + bool((function(torch.zeros(1, 3, 2)) != 0).any())


@pytest.mark.parametrize(
    "function",
    [
        lambda x: 2 * x,
        lambda x: x * x,
        lambda x: x.cumsum(1),
        lambda x: x + x.flip(1),
        lambda x: x.roll(1, 0),
        lambda x: x[:1].expand(len(x), -1, -1),  # the first sample looks as if nothing had happened
        lambda x: torch.cat([x[:1], x[1:].flip(1)]),
    ],
)
def test_what_does_more_than_move_is_no_rearrangement(function):
    with pytest.raises(ValueError, match="does more than move entries"):
        rearrangement(function, (3, 2))
