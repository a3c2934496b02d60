"""Forms on windows are the dense forms, wherever the window lies and whatever it goes through."""

import pytest
import torch
from torch import Tensor, nn

from ctbench.domains import crown
from ctbench.domains.linear_form import Form, LinearForm
from ctbench.domains.window_form import WindowForm
from ctbench.graph import Affine, Lines, freeze, trace
from ctbench.graph.ops import AvgPool2d, Conv2d, Reshape, Scale
from ctbench.regions import Box, Linf

SHAPE = (3, 9, 8)


def every_neuron(shape: tuple[int, ...], batch: int = 2) -> WindowForm:
    size = shape[0] * shape[1] * shape[2]
    index = torch.arange(size + 1).expand(batch, -1)  # and the empty form
    return WindowForm.neurons(index, shape, -1.0, torch.zeros((), dtype=torch.float64))


def same(found: Form, expected: LinearForm) -> None:
    torch.testing.assert_close(found.dense().coefficients, expected.coefficients, rtol=1e-12, atol=1e-12)
    zeros = torch.zeros(expected.coefficients.shape[:2], dtype=torch.float64)
    torch.testing.assert_close(found.constant + zeros, expected.constant + zeros, rtol=1e-12, atol=1e-12)


def convolution(kernel: tuple[int, int], stride: int, padding: int, dilation: int, groups: int) -> Conv2d:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, SHAPE[0] // groups, *kernel, dtype=torch.float64, generator=generator)
    bias = torch.randn(6, dtype=torch.float64, generator=generator)
    return Conv2d(weight, bias, (stride, stride), (padding, padding), (dilation, dilation), groups, SHAPE)


def test_neurons_are_single_outputs_with_a_sign():
    form = every_neuron(SHAPE).dense().coefficients.flatten(2)
    assert torch.equal(form[1, :-1], -torch.eye(216, dtype=torch.float64))
    assert not form[:, -1].any()


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [
        ((3, 3), 1, 1, 1, 1),
        ((4, 3), 2, 1, 1, 1),
        ((1, 1), 2, 0, 1, 1),
        ((2, 2), 3, 0, 1, 3),
        ((3, 2), 1, 2, 2, 1),
        ((2, 2), 1, 2, 1, 1),
    ],
)
def test_a_window_goes_through_convolutions_as_the_dense_form(kernel, stride, padding, dilation, groups):
    op = convolution(kernel, stride, padding, dilation, groups)
    form = every_neuron(op.shape(SHAPE))
    same(form.through(op), form.dense().through(op))
    again = convolution((3, 3), 1, 1, 1, 1)
    again = Conv2d(again.weight.repeat(1, 2, 1, 1)[:3, :3], None, (1, 1), (1, 1), (1, 1), 1, SHAPE)
    same(form.through(op).through(again), form.dense().through(op).through(again))


def affine_ops() -> dict[str, Affine]:
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    return {
        "scale a channel": Scale(random(3, 1, 1), random(3, 1, 1)),
        "scale a pixel": Scale(random(3, 9, 8), random(3, 9, 8)),
        "pool": AvgPool2d((3, 2), (2, 2), (1, 0), (3, 18, 16)),
        "reshape": Reshape((216,), SHAPE),
    }


@pytest.mark.parametrize("name", affine_ops())
def test_a_window_goes_through_other_affine_ops_as_the_dense_form(name):
    op = affine_ops()[name]
    form = every_neuron(SHAPE)  # the output of each of the ops
    same(form.through(op), form.dense().through(op))
    wider = every_neuron((6, 9, 8)).through(convolution((3, 3), 1, 1, 1, 1))
    same(wider.through(op), wider.dense().through(op))


def test_a_window_is_relaxed_and_minimised_as_the_dense_form():
    generator = torch.Generator().manual_seed(2)
    form = every_neuron((6, 9, 8)).through(convolution((3, 3), 1, 1, 1, 1))
    lines = Lines(*torch.rand(4, 2, *SHAPE, dtype=torch.float64, generator=generator))
    same(form.relaxed(lines), form.dense().relaxed(lines))
    without = lines._replace(lower_offset=None)
    same(form.relaxed(without), form.dense().relaxed(without))
    corners = torch.rand(2, 2, *SHAPE, dtype=torch.float64, generator=generator).sort(0).values
    box = Box(*corners)
    torch.testing.assert_close(form.minimum(box), form.dense().minimum(box), rtol=1e-12, atol=1e-12)
    other = every_neuron(SHAPE).dense()
    form = every_neuron(SHAPE)
    same(form + form, LinearForm(2 * other.coefficients, 0.0))


def test_crown_uses_windows_and_finds_the_bounds_of_dense_forms(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 5),
    ).double()
    x = torch.rand(3, 1, 10, 10, dtype=torch.float64)
    graph, _ = freeze(trace(model, (1, 10, 10)), x)
    region = Linf(eps=0.05).region(x)
    windows = []
    relaxed = WindowForm.relaxed
    monkeypatch.setattr(WindowForm, "relaxed", lambda form, lines: windows.append(form.size) or relaxed(form, lines))
    found = crown.boxes(graph, region, pure=True)
    assert set(windows) == {(2, 2), (5, 5), (3, 3)}
    monkeypatch.setattr(WindowForm, "neurons", lambda *args: neurons(*args).dense())
    for box, expected in zip(found, crown.boxes(graph, region, pure=True), strict=True):
        torch.testing.assert_close(box.lower, expected.lower, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(box.upper, expected.upper, rtol=1e-12, atol=1e-12)


neurons = WindowForm.neurons


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 3, padding=8, dilation=3)],
        [
            nn.Conv2d(1, 1, 3),
            nn.ReLU(),
            nn.Conv2d(1, 1, 1, stride=2),
            nn.ReLU(),
            nn.Conv2d(1, 1, 3, padding=5, dilation=2),
        ],
        [nn.ReLU(), nn.Conv2d(1, 2, 3)],
    ],
)
def test_crown_holds_where_windows_lie_wholly_in_the_padding_and_where_a_relu_comes_first(layers):
    torch.manual_seed(0)
    model = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).double()
    x = torch.rand(2, 1, 12, 12, dtype=torch.float64) - 0.5
    model(x)
    graph, _ = freeze(trace(model, (1, 12, 12)), x)
    region = Linf(eps=0.1, clip=None).region(x)
    points = region.sample(200, torch.Generator().manual_seed(0))
    boxes = crown.boxes(graph, region)
    for sample in range(2):
        logits = model(points[:, sample])
        assert (logits >= boxes[-1].lower[sample] - 1e-9).all()
        assert (logits <= boxes[-1].upper[sample] + 1e-9).all()
    assert (boxes[-1].upper - boxes[-1].lower).max() < 10
