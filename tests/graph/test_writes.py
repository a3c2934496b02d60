"""Tracing values that are written into: they are read as changed, or refused."""

import operator
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from tests.graph.forwards import Wrap, check, refusal
from torch import Tensor, nn

from ctbench.graph import UnsupportedLayerError, trace

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
    """On inputs above 0 this ReLU changes nothing, so a comparison of values there finds no difference."""
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


OPERATORS = (operator.iadd, operator.isub, operator.imul, operator.itruediv)


@pytest.mark.parametrize("operation", OPERATORS)
@pytest.mark.parametrize("other", ["number", "parameter", "value"])
def test_operators_in_place_end_the_value_that_they_write_into(operation, other):
    """Also if they change nothing, like a factor of 1 before training."""

    def forward(m: Wrap, x: Tensor) -> Tensor:
        h = m.first(x.flatten(1))
        others = {"number": 1.0, "parameter": m.one, "value": F.silu(h)}
        return m.second(operation(h, others[other]) + h)

    torch.manual_seed(0)
    model = Wrap(forward)
    model.one = nn.Parameter(torch.ones(()) if operation in (operator.imul, operator.itruediv) else torch.zeros(()))
    assert "uses the output of 'first' after a layer has written into it" in (refusal(model) or "")


STATEMENTS = {
    "relu_": lambda m, h: h.relu_(),
    "torch.relu_": lambda m, h: torch.relu_(h),
    "add_": lambda m, h: h.add_(1.0),
    "masked_fill_": lambda m, h: h.masked_fill_(torch.arange(6) < 2, -0.5),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_value_is_what_a_statement_has_written_into_it(name):
    def forward(m: Wrap, x: Tensor) -> Tensor:
        h = m.first(x.flatten(1))
        STATEMENTS[name](m, h)
        return m.second(h)

    check(Wrap(forward), 2, 3)


@pytest.mark.parametrize("name", STATEMENTS)
def test_views_of_what_a_statement_has_written_into_are_refused(name):
    def forward(m: Wrap, x: Tensor) -> Tensor:
        h = m.first(x.flatten(1))
        view = h.flatten(1)
        STATEMENTS[name](m, h)
        return m.second(view + h)

    assert "after a layer has written into it" in (refusal(Wrap(forward)) or "")


VIEWS = {
    "the value itself": lambda m, h: h,
    "a flattened one": lambda m, h: h.flatten(1),
    "a slice": lambda m, h: h[:, :3].repeat(1, 2),
    "a part": lambda m, h: h.chunk(2, 1)[1].repeat(1, 2),
    "a transposition": lambda m, h: h.unflatten(1, (2, 3)).transpose(1, 2).flatten(1),
    "an expansion": lambda m, h: h.unsqueeze(1).expand(-1, 2, -1)[:, 0],
    "an identity": lambda m, h: m.identity(h),
    "a dropout": lambda m, h: m.dropout(h),
    "a dropout as a function": lambda m, h: F.dropout(h, 0.5, m.training),
}
COPIES = {
    "a clone": lambda m, h: h.clone(),
    "a padded one": lambda m, h: F.pad(h, (0, 0)),
    "a multiple": lambda m, h: h * 1,
    "a rectified one": lambda m, h: F.relu(h),
    "a joined one": lambda m, h: torch.cat([h], 1),
}


def with_extras(forward) -> Wrap:
    torch.manual_seed(0)
    model = Wrap(forward)
    model.identity, model.dropout = nn.Identity(), nn.Dropout(0.5)
    return model


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_ends_with_what_it_is_a_view_of(name):
    def first_the_view(m: Wrap, x: Tensor) -> Tensor:
        h = m.first(x.flatten(1))
        kept = VIEWS[name](m, h)
        h *= 2
        return m.second(h + kept)

    def through_the_view(m: Wrap, x: Tensor) -> Tensor:
        h = m.first(x.flatten(1))
        kept = h.flatten(1)
        view = m.identity(m.dropout(kept))
        view -= 1
        return m.second(h if name == "the value itself" else VIEWS[name](m, h))

    for forward in (first_the_view, through_the_view):
        assert "after a layer has written into it" in (refusal(with_extras(forward)) or "")


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_outlives_what_it_was_made_of(name):
    def forward(m: Wrap, x: Tensor) -> Tensor:
        h = m.first(x.flatten(1))
        kept = COPIES[name](m, h)
        h *= 2
        return m.second(h + kept)

    check(with_extras(forward), 2, 3)


def test_an_input_that_is_overwritten_is_read_as_changed():
    def forward(m: Wrap, x: Tensor) -> Tensor:
        x -= 0.5
        x /= 0.25
        return m.second(m.relu(x).flatten(1))

    torch.manual_seed(0)
    check(Wrap(forward), 2, 3)


def far(x: Tensor) -> Tensor:
    """0 at the inputs that a check would try, and large elsewhere."""
    return 100 * F.relu(x.flatten(1).sum(1) - 20)


def padded(m: Wrap, x: Tensor) -> Tensor:
    result = x.new_full((x.shape[0], 8), 0.5)
    result[:, 1:7] = x.flatten(1)
    return result * m.first(x.flatten(1)).sum(1, keepdim=True)


def into_zeros(m: Wrap, x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    result[:, 0] = x[:, 1]
    result[:, 1, 1:] += far(x).unsqueeze(1)
    return result


def column(h: Tensor, value: Tensor) -> None:
    h[:, 0] = value


def sum_in_a_column(h: Tensor, value: Tensor) -> None:
    h[:, 0] += value


def columns(h: Tensor, value: Tensor) -> None:
    h[..., 0:4:2] = value.unsqueeze(1)


def number(h: Tensor, value: Tensor) -> None:
    h[:, -1] = 0.5


def view(h: Tensor, value: Tensor) -> None:
    h.unsqueeze(1)[:, 0, 1] = value


def by_the_function(h: Tensor, value: Tensor) -> None:
    torch.Tensor.add_(h[:, 0], value)


def several(h: Tensor, value: Tensor) -> None:
    h[:, 0] += value
    h[:, 1:3] *= 2
    h[:, 0] -= h[:, 1]
    torch.relu_(h)


def one_sample(h: Tensor, value: Tensor) -> None:
    h[0] = 0.5


def where_negative(h: Tensor, value: Tensor) -> None:
    h[h < 0] = 0.0


def hidden(write: Callable[[Tensor, Tensor], None]) -> Callable[[Wrap, Tensor], Tensor]:
    def forward(m: Wrap, x: Tensor) -> Tensor:
        h = m.first(x.flatten(1))
        write(h, far(x))
        return m.second(h)

    return forward


def into_the_input(m: Wrap, x: Tensor) -> Tensor:
    x[:, 0, 1] = far(x)
    return m.first(x.flatten(1))


WRITES = (column, sum_in_a_column, columns, number, view, by_the_function, several)
PLACES = {write.__name__: hidden(write) for write in WRITES} | {
    forward.__name__: forward for forward in (padded, into_zeros, into_the_input)
}


@pytest.mark.parametrize("name", PLACES)
def test_a_write_at_places_is_read(name):
    """Also far from the random inputs of a check: a write that is left out would bound another network."""
    torch.manual_seed(0)
    model = Wrap(PLACES[name]).double()
    graph = trace(model, (2, 3))
    x = 20 * torch.randn(200, 2, 3, dtype=torch.float64)
    assert not torch.allclose(far(x), torch.zeros(200, dtype=torch.float64))
    torch.testing.assert_close(graph(x), model(x.clone()).flatten(1))


@pytest.mark.parametrize("write", [one_sample, where_negative])
def test_other_writes_are_refused(write):
    assert refusal(Wrap(hidden(write))) is not None


def test_a_forward_that_writes_into_its_buffers_is_refused():
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.ones(6))

        def forward(self, x: Tensor) -> Tensor:
            self.scale += 0.5
            return x * self.scale

    with pytest.raises(UnsupportedLayerError, match="writes into 'scale', so its next call may compute something else"):
        trace(Counted(), (6,))
