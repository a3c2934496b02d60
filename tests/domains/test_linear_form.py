"""Linear forms between lines: the hand-written gradient is that of the formula."""

import pytest
import torch
from torch import nn

from ctbench.domains import crown
from ctbench.domains.linear_form import LinearForm, RelaxedCoefficients
from ctbench.graph import Lines, freeze, trace
from ctbench.regions import Linf


def formula(a, low, high):
    return a.clamp(min=0) * low + a.clamp(max=0) * high, a.clamp(max=0)


def leaves(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 3, 4, 2)] * 3,
        [(2, 3, 4, 2), (2, 1, 4, 2), (2, 1, 4, 2)],  # lines that all forms share
        [(2, 3, 4), (2, 3, 1), (2, 1, 4)],
    ],
    ids=["alike", "lines shared", "of one slope"],
)
def test_a_form_between_lines_has_the_gradient_of_its_formula(shapes):
    given = leaves(*shapes)
    found, expected = RelaxedCoefficients.apply(*given), formula(*given)
    weights = leaves(*(part.shape for part in expected))
    gradients = []
    for parts in (found, expected):
        total = sum((weight * part).sum() for weight, part in zip(weights, parts, strict=True))
        gradients.append(torch.autograd.grad(total, given))
    for own, other in zip((*found, *gradients[0]), (*expected, *gradients[1]), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(RelaxedCoefficients.apply, given)


@pytest.mark.parametrize("samples", [1, 2])
def test_a_form_has_one_gradient_whether_all_samples_share_it_or_not(samples):
    a, low, high, upper_offset = leaves((samples, 3, 4), (2, 4), (2, 4), (2, 4))
    form = LinearForm(a, 0.0).relaxed(Lines(low, None, high, upper_offset))
    coefficients, negative = formula(a, low.unsqueeze(1), high.unsqueeze(1))
    gradients = [
        torch.autograd.grad(slopes.square().sum() + constant.square().sum(), [a, low, high, upper_offset])
        for slopes, constant in (
            (form.coefficients, form.constant),
            (coefficients, (negative * upper_offset.unsqueeze(1)).sum(2)),
        )
    ]
    for own, other in zip(*gradients, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wanted", range(3))
def test_a_gradient_is_made_for_what_wants_one(wanted):
    given = leaves((2, 3, 4), (2, 1, 4), (2, 1, 4))
    for at, tensor in enumerate(given):
        tensor.requires_grad_(at == wanted)
    gradients = [
        torch.autograd.grad(sum(part.square().sum() for part in parts), given[wanted])[0]
        for parts in (RelaxedCoefficients.apply(*given), formula(*given))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_a_coefficient_of_zero_takes_the_lower_slope():
    """Both slopes are gradients there; forms that end at a dead neuron have many zeros."""
    a, low, high = torch.zeros(1, 1, 2), torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[0.3, 0.7]]])
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(RelaxedCoefficients.apply(a, low, high)[0].sum(), a)
    assert torch.equal(gradient, low)


def test_coefficients_of_any_size_meet_the_right_slope():
    """One that met the lower slope above would make a bound that is no bound."""
    lines = Lines(torch.full((1, 2), 0.25), None, torch.full((1, 2), 0.5), torch.ones(1, 2))
    for size in (1e6, 1e30):
        form = LinearForm(torch.tensor([[[-size, size]]]), 0.0).relaxed(lines)
        assert torch.equal(form.coefficients, size * torch.tensor([[[-0.5, 0.25]]]))
        assert torch.equal(form.constant, torch.tensor([[-size]]))
        raised = LinearForm(torch.tensor([[[-size, size]]]), 0.0).relaxed(lines._replace(lower_offset=torch.ones(1, 2)))
        assert torch.equal(raised.coefficients, form.coefficients)
        assert torch.equal(raised.constant, torch.tensor([[0.0]]))


def test_what_is_no_number_stays_none():
    lines = Lines(torch.ones(1, 2), None, torch.ones(1, 2), torch.ones(1, 2))
    form = LinearForm(torch.tensor([[[torch.nan, 1.0]]]), 0.0).relaxed(lines)
    assert form.coefficients.isnan().tolist() == [[[True, False]]]
    assert form.constant.isnan().all()


def test_a_sample_alone_has_the_gradient_that_it_has_among_others():
    """Alone, windows share their forms, which a batch does not need to see."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 8)]
    model = nn.Sequential(*layers, nn.Flatten()).double()
    x = torch.rand(1, 2, 8, 8, dtype=torch.float64)
    gradients = []
    for batch in (1, 2):
        net, _ = freeze(trace(model, (2, 8, 8)), x.expand(batch, -1, -1, -1))
        spec = torch.eye(3, dtype=torch.float64).expand(batch, -1, -1)
        bounds = crown.lower_bounds(net, Linf(eps=0.05).region(x.expand(batch, -1, -1, -1)), spec)
        gradients.append(torch.autograd.grad(bounds.sum() / batch, list(model.parameters())))
    for alone, among in zip(*gradients, strict=True):
        torch.testing.assert_close(alone, among, rtol=1e-9, atol=1e-9)
