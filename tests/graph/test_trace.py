"""Tracing: what a forward may be written in, that the graph equals the module, and errors."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench import bounds
from ctbench.graph import Elementwise, Lines, UnsupportedLayerError, freeze, lower, trace
from ctbench.graph.ops import Add, Scale


class Wrap(nn.Module):
    """A forward that is given as a function of three layers and x, for inputs of shape (2, 3)."""

    def __init__(self, forward) -> None:
        super().__init__()
        self.function = forward
        self.first, self.second, self.relu = nn.Linear(6, 6), nn.Linear(6, 4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def check(model: nn.Module, *shape: int) -> None:
    """The graph computes what the module computes at test time."""
    model = model.double()
    x = torch.randn(5, *shape, dtype=torch.float64)
    graph, logits = freeze(trace(model, shape), x)
    expected = model.eval()(x.clone())
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(graph(x), expected, rtol=1e-12, atol=1e-12)
    assert graph.input_shape == shape
    assert graph.classes == expected.shape[1]
    assert all(i < at for at, node in enumerate(graph.nodes) for i in node.inputs)


def refusal(model: nn.Module) -> str | None:
    """What a network for inputs (2, 3) is refused with, or None if its graph computes the same."""
    try:
        check(model, 2, 3)
    except ValueError as error:
        return str(error)
    return None


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


# Reading these as if they were out of place would bound another network than the module.
IN_PLACE = {
    "a layer in place": lambda m, x: (lambda h: m.second(m.relu(h)) + m.second(h))(m.first(x.flatten(1))),
    "a function in place": lambda m, x: (lambda h: m.second(F.relu(h, inplace=True)) + m.second(h))(
        m.first(x.flatten(1))
    ),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_value_changed_in_place_is_read_as_changed_or_refused(name):
    torch.manual_seed(0)
    message = refusal(Wrap(IN_PLACE[name]))
    assert message is None or "place" in message


def test_a_change_in_place_is_seen_where_random_inputs_do_not_show_it():
    """On inputs above 0 this ReLU changes nothing, so that comparing values there finds no difference."""
    model = Wrap(IN_PLACE["a layer in place"]).double()
    with torch.no_grad():
        model.first.weight.copy_(torch.eye(6))
        model.first.bias.zero_()
    try:
        graph = trace(model, (2, 3))
    except ValueError:
        return
    x = torch.full((1, 2, 3), -1.0, dtype=torch.float64)
    torch.testing.assert_close(graph(x), model.eval()(x.clone()))


def test_a_sum_in_place_is_read_as_changed_or_refused():
    def forward(m: Wrap, x: Tensor) -> Tensor:
        h = kept = m.first(x.flatten(1))
        h += x.flatten(1)
        return m.second(h + kept)

    torch.manual_seed(0)
    message = refusal(Wrap(forward))
    assert message is None or "place" in message


def test_a_sum_written_into_the_input_can_be_read():
    def forward(m: Wrap, x: Tensor) -> Tensor:
        h = x.flatten(1)
        h += m.first(h)  # also changes x, which nothing uses any more
        return m.second(h)

    torch.manual_seed(0)
    check(Wrap(forward), 2, 3)


def test_a_subclass_with_a_forward_of_its_own_is_not_taken_for_its_base():
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    with pytest.raises(ValueError, match=r"Doubled|does not compute what the network does"):
        trace(nn.Sequential(Doubled(3, 2)), (3,))


def test_a_forward_hook_is_not_left_out_silently():
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].register_forward_hook(lambda module, inputs, output: 3 * output)
    with pytest.raises(ValueError, match="hook"):
        trace(model, (3,))


def late(output: Tensor) -> Tensor:
    """Does nothing on the inputs that a check would try."""
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
        with pytest.raises(UnsupportedLayerError, match="has forward hooks or a forward of its own instance"):
            trace(model, (3,))


def test_layers_that_compute_their_weights_are_refused():
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    with pytest.raises(UnsupportedLayerError, match=r"layer '0' .* computes its weights: fix them with"):
        trace(model, (3,))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused(dtype):
    with pytest.raises(ValueError, match=r"parameter '0.weight' is .* too coarse for bounds: use model.float\(\)"):
        trace(nn.Sequential(nn.Linear(3, 2)).to(dtype), (3,))


def test_a_sum_in_place_is_refused_where_random_inputs_do_not_show_it():
    def forward(m: Wrap, x: Tensor) -> Tensor:
        h = kept = m.first(x.flatten(1))
        h += nn.functional.relu(m.dead(x.flatten(1)))
        return m.second(h + kept)

    torch.manual_seed(0)
    model = Wrap(forward)
    model.dead = nn.Linear(6, 6)
    nn.init.constant_(model.dead.bias, -1e3)  # on all inputs that a check would try
    assert "after a layer has written into it" in (refusal(model) or "")


def test_a_view_of_what_is_overwritten_is_refused():
    def forward(m: Wrap, x: Tensor) -> Tensor:
        h = m.first(x.flatten(1))
        view = h.flatten(1)
        rectified = nn.functional.relu(h, inplace=True)
        return m.second(view + rectified)

    assert "after a layer has written into it" in (refusal(Wrap(forward)) or "")


def test_modes_stay_as_they_were():
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()), nn.Linear(4, 2)).train()
    model[1][0].eval()
    before = [module.training for module in model.modules()]
    assert True in before
    assert False in before
    trace(model, (3,))
    assert [module.training for module in model.modules()] == before
    model.append(nn.Sigmoid())
    with pytest.raises(UnsupportedLayerError):
        trace(model, (3,))
    assert [module.training for module in model.modules()] == [*before, True]


def test_a_branch_on_the_mode_takes_the_test_side():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.extra = nn.Linear(3, 2), nn.Sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            return self.extra(self.linear(x)) if self.training else self.linear(x)

    model = Branch().train()
    assert [node.name for node in trace(model, (3,)).nodes] == ["input", "linear"]
    assert model.training


def test_an_unsupported_layer_is_named_with_its_path_type_and_remedy():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Sigmoid()))
    message = r"layer '1\.0': layer type torch\.nn\.\S*\.Sigmoid is not supported: .*@ctbench\.graph\.lower\.register"
    with pytest.raises(UnsupportedLayerError, match=message):
        trace(model, (3,))
    assert issubclass(UnsupportedLayerError, ValueError)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda m, x: m.second(torch.sin(x.flatten(1))), r"'sin' .*sin.* is not supported: .*lower\.register"),
        (lambda m, x: m.second(x.flatten(1)) + 1.0, r"'add' .* is not supported"),
        (lambda m, x: torch.add(m.second(x.flatten(1)), m.second(x.flatten(1)), alpha=2), "'add' .* not supported"),
        (lambda m, x: m.second(x.view(5, 6)), "fixes the batch size: write"),
        (lambda m, x: m.second(torch.flatten(x)), r"Flatten\(start_dim=0\) mixes the samples"),
        (
            lambda m, x: m.second(x.view(-1, 3, 1).view(-1, 6)),
            r"layer 'view' .*\(2, 3\) cannot be reshaped to \(3, 1\)",
        ),
        (lambda m, x: m.second(x.flatten(1)) + m.first(x.flatten(1)), r"layer 'add' .*\(4,\) and \(6,\)"),
        (lambda m, x: (m.second(x.flatten(1)), x), "must return one tensor, its forward returns tuple"),
        (lambda m, x: m.relu(x), r"one vector of logits a sample, it returns shape \(2, 3\)"),
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

    with pytest.raises(ValueError, match="must take one tensor, its forward has a second argument 'z'"):
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
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AvgPool2d(2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, divisor_override=3),
        nn.Flatten(0),
    ],
    ids=str,
)
def test_options_without_a_rule_are_refused(layer):
    with pytest.raises(UnsupportedLayerError, match="layer '0'"):
        trace(nn.Sequential(layer, nn.Flatten()), (1, 4, 4))


class Shift(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 2


class Absolute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class Abs(Elementwise):
    def __call__(self, x: Tensor) -> Tensor:
        return x.abs()

    def image(self, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        crosses = (lower < 0) & (upper > 0)
        ends = torch.stack([lower.abs(), upper.abs()])
        return torch.where(crosses, 0.0, ends.amin(0)), ends.amax(0)

    def lines(self, lower: Tensor, upper: Tensor, slope: Tensor) -> Lines:
        chord = (upper.abs() - lower.abs()) / (upper - lower)
        return Lines(chord, torch.zeros_like(chord), chord, lower.abs() - chord * lower)

    def exact(self, lower: Tensor, upper: Tensor) -> Tensor:
        return (lower >= 0) | (upper <= 0)


def test_a_registered_layer_works_end_to_end():
    lower.register(Shift, lambda module, shape: Scale(torch.ones(1).double(), torch.full((1,), 2.0).double()))
    lower.register(Absolute, lambda module, shape: Abs())
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), Shift(), Absolute(), nn.Linear(5, 2)).double()
    check(model, 3)
    check(nn.Sequential(Absolute()), 3)
    x = torch.rand(2, 3).double()
    points = x + 0.3 * (2 * torch.rand(500, 2, 3).double() - 1)
    values = model(points).detach()
    for domain in ("interval", "crown-ibp", "crown"):
        low, up = bounds(model, x, eps=0.3, clip=None, domain=domain)
        assert (low <= values.amin(0)).all()
        assert (up >= values.amax(0)).all()
        assert (up - low < 20).all()
