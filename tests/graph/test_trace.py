"""Tracing: the supported code of a forward, the equality of graph and module, and errors."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from tests.graph.forwards import Wrap, check, refusal
from torch import Tensor, nn

from ctbench import bounds
from ctbench.graph import UnsupportedLayerError, lower, trace
from ctbench.graph.ops import Add, Conv2d, Input, Linear, Reshape, Scale, Smooth
from ctbench.regions import Linf


def residual(m: Wrap, x: Tensor) -> Tensor:
    h = m.first(torch.flatten(x, 1))
    return m.second(F.relu(h) + h)


FORWARDS = {
    "torch.flatten, torch.relu": lambda m, x: m.second(torch.relu(m.first(torch.flatten(x, 1)))),
    "torch.flatten by name": lambda m, x: m.second(torch.flatten(x, start_dim=1)),
    "flatten, relu as methods": lambda m, x: m.second(m.first(x.flatten(1)).relu()),
    "F.relu by name": lambda m, x: m.second(F.relu(input=m.first(x.flatten(1)))),
    "F.relu in place": lambda m, x: m.second(F.relu(m.first(x.flatten(1)), inplace=True)),
    "view with size(0)": lambda m, x: m.second(x.view(x.size(0), -1)),
    "view with shape[0]": lambda m, x: m.second(x.view(x.shape[0], 6)),
    "view with -1": lambda m, x: m.second(x.view(-1, 6)),
    "reshape with a tuple": lambda m, x: m.second(x.reshape((x.size()[0], -1))),
    "torch.reshape": lambda m, x: m.second(torch.reshape(x, (-1, x.shape[1], 3)).flatten(1)),
    "residual": residual,
    "residual with torch.add": lambda m, x: torch.add(m.second(x.flatten(1)), m.second(m.first(x.flatten(1)))),
    "a layer used twice": lambda m, x: m.second(m.first(m.first(x.flatten(1)).relu())),
    "a sum with itself": lambda m, x: (lambda h: h + h)(m.second(x.flatten(1))),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_the_graph_computes_what_the_module_computes(name):
    torch.manual_seed(0)
    check(Wrap(FORWARDS[name]), 2, 3)


def test_nested_modules_are_named_by_their_paths():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())
    model = nn.Sequential(nn.Sequential(block, nn.AvgPool2d(2)), nn.Flatten(), nn.Linear(8, 3))
    check(model, 1, 4, 4)
    names = [node.name for node in trace(model, (1, 4, 4)).nodes]
    assert names == ["input", "0.0.0", "0.0.1", "0.0.2", "0.1", "1", "2"]


def test_average_pooling_as_a_function():
    class Pool(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(F.avg_pool2d(x, 3, stride=2, padding=1).flatten(1))

    check(Pool(), 1, 4, 4)


@pytest.mark.parametrize("layer", [nn.Linear(3, 2), nn.ReLU(), nn.BatchNorm1d(3), nn.Identity()])
def test_a_single_layer_is_a_network(layer):
    check(layer, 3)


def test_a_residual_sum_becomes_an_add():
    graph = trace(Wrap(residual), (2, 3))
    (add,) = (node for node in graph.nodes if isinstance(node.op, Add))
    assert [graph.nodes[i].name for i in add.inputs] == ["relu", "first"]


def test_parameters_are_held_not_copied():
    model = nn.Sequential(nn.Linear(3, 2))
    graph, x = trace(model, (3,)), torch.rand(2, 3)
    with torch.no_grad():
        model[0].weight.mul_(2)
    assert torch.equal(graph(x), model(x))


def test_a_subclass_with_a_forward_of_its_own_is_not_taken_for_its_base():
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    torch.manual_seed(0)
    model = nn.Sequential(Doubled(3, 2))
    check(model, 3)
    assert [type(node.op) for node in trace(model, (3,)).nodes] == [Input, Linear, Scale]


def test_a_subclass_whose_forward_cannot_be_read_is_refused():
    class Other(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return torch.digamma(super().forward(x))

    with pytest.raises(UnsupportedLayerError, match=r"'0\.digamma' \(call_function digamma\) is not supported"):
        trace(nn.Sequential(Other(3, 2)), (3,))


def test_a_forward_hook_is_not_left_out_silently():
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].register_forward_hook(lambda module, inputs, output: 3 * output)
    with pytest.raises(ValueError, match="hook"):
        trace(model, (3,))


def late(output: Tensor) -> Tensor:
    """A layer that does nothing on the inputs that a check would try."""
    return torch.where(output.abs() > 1e3, -output, output)


def test_hooks_are_refused_even_where_random_inputs_do_not_show_them():
    inner = nn.Sequential(nn.Linear(3, 2))
    inner[0].register_forward_hook(lambda module, inputs, output: late(output))
    outer = nn.Sequential(nn.Linear(3, 2))
    outer.register_forward_pre_hook(lambda module, inputs: (late(inputs[0]),))
    patched = nn.Sequential(nn.Linear(3, 2))
    forward = patched[0].forward
    patched[0].forward = lambda x: late(forward(x))
    for model in (inner, outer, patched):
        with pytest.raises(UnsupportedLayerError, match="has forward hooks or a forward set on the instance"):
            trace(model, (3,))


def test_layers_that_compute_their_weights_are_refused():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    with pytest.raises(UnsupportedLayerError, match=r"layer '0' .* computes its weights: fix them with"):
        trace(model, (3,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(ValueError, match=r"parameter '0.weight' is .* too coarse for bounds: use model.float\(\)"):
        trace(nn.Sequential(nn.Linear(3, 2)).to(dtype), (3,))


def test_modes_stay_as_they_were():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()), nn.Linear(4, 2)).train()
    model[1][0].eval()
    before = [module.training for module in model.modules()]
    assert True in before
    assert False in before
    trace(model, (3,))
    assert [module.training for module in model.modules()] == before
    model.append(nn.Hardshrink())
    with pytest.raises(UnsupportedLayerError):
        trace(model, (3,))
    assert [module.training for module in model.modules()] == [*before, True]


def test_a_branch_on_the_mode_takes_the_test_side():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.extra = nn.Linear(3, 2), nn.Softmax(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.extra(self.linear(x)) if self.training else self.linear(x)

    model = Branch().train()
    assert [node.name for node in trace(model, (3,)).nodes] == ["input", "linear"]
    assert model.training


def test_an_unsupported_layer_is_named_with_its_path_type_and_remedy():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Hardshrink()))
    message = (
        r"layer '1\.0' \(Hardshrink\): layer type torch\.nn\.\S*\.Hardshrink is not supported: "
        r".*@ctbench\.graph\.lower\.register"
    )
    with pytest.raises(UnsupportedLayerError, match=message):
        trace(model, (3,))
    assert issubclass(UnsupportedLayerError, ValueError)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x: m.second(torch.digamma(x.flatten(1))), r"'digamma' .* is not supported: .*lower\.register"),
        (
            lambda m, x: m.second(x.flatten(1)) ** m.second(x.flatten(1)),
            r"'pow_1' is a power of a value of the network with the exponent a value of the network",
        ),
        (lambda m, x: m.second(x.view(5, 6)), r"'view' .* \(2, 3\), .* write -1 or x\.size\(0\) for its size"),
        (lambda m, x: m.second(torch.flatten(x)), r"'flatten' .* makes \(12,\) of 2 samples of shape \(2, 3\)"),
        (lambda m, x: m.second(x.view(-1, 3, 1).view(-1, 6)), r"'view' .* makes \(4, 3, 1\) of 2 samples"),
        (lambda m, x: m.second(x), r"layer 'second' \(Linear\): the layer takes 6 features.*\(2, 3\)"),
        (lambda m, x: m.second(x, x), r"layer 'second' \(Linear\) must be called with one value"),
        (lambda m, x: m.second(2.0), r"layer 'second' \(Linear\) must be called with one value"),
        (
            lambda m, x: m.second(x.flatten(1)) + m.first(x.flatten(1)),
            r"'add' joins values of shapes \(4,\) and \(6,\)",
        ),
        (lambda m, x: (m.second(x.flatten(1)), x), "must return one tensor, its forward returns tuple"),
    ],
)
def test_what_cannot_be_traced_is_said(forward, message):
    with pytest.raises(ValueError, match=message):
        trace(Wrap(forward), (2, 3))


def test_a_batch_size_from_len_is_read_or_refused_with_an_error_of_ours():
    message = refusal(Wrap(lambda m, x: m.second(x.view(len(x), -1))))
    assert message is None or "len(x), ..." not in message  # the remedy cannot be what failed


def test_control_flow_on_values_is_refused():
    with pytest.raises(ValueError, match=r"Wrap\.forward cannot be traced .* must not branch on values"):
        trace(Wrap(lambda m, x: m.first(x) if x.sum() > 0 else m.second(x)), (6,))


def test_a_second_input_is_refused():
    class Two(nn.Module):
        def forward(self, x: Tensor, z: Tensor) -> Tensor:
            return x + z

    with pytest.raises(ValueError, match=r"must take one tensor, .* second argument 'z' without a default"):
        trace(Two(), (3,))


def test_a_wrong_input_shape_names_the_layer():
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.ReLU(), nn.Linear(5, 2))
    with pytest.raises(ValueError, match=r"layer '1' \(Linear\): the layer takes 6 features.*\(8,\)"):
        trace(model, (8,))
    with pytest.raises(ValueError, match=r"layer '3' \(Linear\): the layer takes 5 features.*\(4,\)"):
        trace(model, (6,))


@pytest.mark.parametrize(
    "layer",
    [
        nn.ELU(-1.0),
        nn.Flatten(0),
        nn.MaxPool2d(2, return_indices=True),
        nn.ConstantPad2d(1, math.inf),
    ],
    ids=str,
)
def test_options_without_a_rule_are_refused(layer):
    with pytest.raises(UnsupportedLayerError, match=rf"layer '0' \({type(layer).__name__}\): "):
        trace(nn.Sequential(layer, nn.Flatten()), (1, 4, 4))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Unflatten(1, (3, 3)),
        nn.PixelShuffle(2),
        nn.ReflectionPad2d(5),
        nn.MaxPool2d(5),
        nn.Conv2d(1, 1, 5),
        nn.Conv2d(1, 1, 3, padding=9, padding_mode="circular"),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv1d(4, 1, 3),
        nn.ConvTranspose2d(2, 1, 3),
        nn.BatchNorm2d(2),
    ],
    ids=str,
)
def test_layers_that_do_not_fit_are_named(layer):
    shape = (16,) if isinstance(layer, nn.AdaptiveAvgPool2d) else (1, 4, 4)
    with pytest.raises(ValueError, match=r"layer '0' \("):
        trace(nn.Sequential(layer, nn.Flatten()), shape)


def test_padding_of_equal_sides_is_part_of_the_convolution():
    """So CROWN carries windows through it, like through any other convolution."""
    torch.manual_seed(0)
    for padding in ("same", "valid", 1):
        model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=padding), nn.Flatten())
        check(model, 1, 4, 4)
        assert [type(node.op) for node in trace(model, (1, 4, 4)).nodes] == [Input, Conv2d, Reshape]


def test_settings_that_are_changed_later_count():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Flatten())
    model[0].stride, model[0].padding = (1, 1), (2, 0)
    check(model, 1, 4, 4)


class Offset(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.digamma(x) * 0 + x + 2  # refused, except if its op is registered


class Huber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.huber_loss(x, torch.zeros_like(x), reduction="none")


@dataclass(frozen=True)
class HuberOp(Smooth):
    """z^2 / 2 in [-1, 1], |z| - 1/2 outside."""

    inflections: ClassVar[tuple[float, ...]] = (0.0,)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(x.abs() < 1, x**2 / 2, x.abs() - 0.5)

    def derivative(self, x: Tensor) -> Tensor:
        return x.clamp(-1, 1)


def test_a_registered_layer_works_end_to_end():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), Offset(), Huber(), nn.Linear(5, 2)).double()
    with pytest.raises(UnsupportedLayerError, match=r"'1\.digamma' \(call_function digamma\) is not supported"):
        trace(model, (3,))
    lower.register(Offset, lambda module, shape: Scale(torch.ones(1).double(), torch.full((1,), 2.0).double()))
    lower.register(Huber, lambda module, shape: HuberOp())
    check(model, 3)
    check(nn.Sequential(Huber()), 3)
    x = torch.rand(2, 3).double()
    points = x + 0.3 * (2 * torch.rand(500, 2, 3).double() - 1)
    values = model(points).detach()
    for domain in ("interval", "crown-ibp", "crown"):
        low, up = bounds(model, x, Linf(0.3, clip=None), domain=domain)
        assert (low <= values.amin(0)).all()
        assert (up >= values.amax(0)).all()
        assert (up - low < 20).all()


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.hardtanh(x, -0.25, 1.25)


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.5)


@pytest.mark.parametrize("kind", [Cut, Halved])
def test_a_network_is_compared_with_its_graph_outside_of_the_pixels_range_too(kind):
    """Both are the identity in [0, 1]."""
    lower.register(kind, lambda module, shape: Reshape(shape, shape))
    with pytest.raises(ValueError, match="and the network compute different values"):
        trace(nn.Sequential(kind()), (3,))
