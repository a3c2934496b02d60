"""Forwards as people write them: arguments with defaults, shapes, checks, in-place forms, loops, several outputs."""

from collections import namedtuple
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from tests.graph.forwards import Wrap, check
from torch import Tensor, nn

from ctbench import bounds, certify
from ctbench.graph import UnsupportedLayerError, trace
from ctbench.networks import Selected, TwoClasses

FORWARDS = {
    "len": lambda m, x: m.second(x.reshape(len(x), -1)),
    "shape": lambda m, x: m.second(x.view(x.shape[0], x.shape[1] * x.shape[2])),
    "unpacked shape": lambda m, x: (lambda b, c, w: m.second(x.reshape(b, c * w)))(*x.shape),
    "size": lambda m, x: m.second(x.view(x.size(0), x.size(1) * x.size(-1))),
    "range of a shape": lambda m, x: sum(m.second(x.flatten(1)) * i for i in range(1, x.shape[-1])),
    "branch on a shape": lambda m, x: m.second(x.flatten(1) if x.ndim == 3 and x.dim() > 2 else x),
    "dtype and device": lambda m, x: m.second(x.flatten(1)) + torch.ones(4, dtype=x.dtype, device=x.device),
    "zeros of the batch": lambda m, x: m.second(x.flatten(1)) + torch.full((len(x), 4), 0.5, dtype=x.dtype),
    "casts": lambda m, x: m.second(x.to(m.first.weight.dtype).flatten(1).to(x.device).type_as(x)),
    "alpha": lambda m, x: torch.add(m.second(x.flatten(1)), m.second(2 * x.flatten(1)), alpha=0.5).sub(0.25, alpha=2),
    "maximum by max": lambda m, x: torch.max(m.second(x.flatten(1)), m.second(-x.flatten(1))),
    "minimum by min": lambda m, x: torch.min(m.second(x.flatten(1)), m.second(-x.flatten(1))),
    "max of a dimension": lambda m, x: torch.cat([m.second(x.flatten(1)), x.flatten(1).max(1, keepdim=True)[0]], 1),
    "min of a dimension": lambda m, x: torch.cat([m.second(x.flatten(1)), x.flatten(1).min(1, True)[0]], 1),
    "relu_": lambda m, x: m.second(torch.relu_(m.first(x.flatten(1)))),
    "methods in place": lambda m, x: m.second(m.first(x.flatten(1)).relu_().add_(0.5).mul_(2).clamp_(0, 3)),
    "add_ of a value": lambda m, x: m.second(m.first(x.flatten(1)).add_(x.flatten(1))),
    "parts": lambda m, x: m.second(torch.cat([part * 2 for part in x.flatten(1).chunk(3, dim=1)], dim=1)),
    "asserts": lambda m, x: (torch._assert(x.shape[1] == 2, "two rows"), m.second(x.flatten(1)))[1],
    "an output of three axes": lambda m, x: torch.stack([m.second(x.flatten(1)), m.second(2 * x.flatten(1))], dim=1),
    "an output of no axis": lambda m, x: m.second(x.flatten(1)).sum(1),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_the_graph_computes_the_forward(name):
    torch.manual_seed(0)
    vector = FORWARDS[name]

    class Flat(Wrap):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).reshape(len(x), -1)

    check(Flat(vector), 2, 3)
    model = Wrap(vector).double().eval()
    graph = trace(model, (2, 3))
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(graph(x), model(x.clone()).reshape(5, -1))


class Options(nn.Module):
    """Arguments with defaults, checks, and a loop over layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(3)])
        self.heads = nn.ModuleDict({"a": nn.Linear(6, 4), "b": nn.Linear(6, 4)})

    def forward(self, x: Tensor, mask: Tensor | None = None, *, head: str = "a", twice: bool = True) -> Tensor:
        if x.dim() != 3:
            raise ValueError(f"expected three axes, got {x.shape}")
        assert x.shape[1:] == (2, 3), x.shape
        x = x.flatten(1)
        if mask is not None:
            x = x * mask
        for layer in self.layers:
            x = F.relu(layer(x), inplace=True)
        return self.heads[head](x) * (2 if twice else 1)


def test_arguments_have_their_defaults():
    torch.manual_seed(0)
    check(Options(), 2, 3)
    check(Selected(Options(), given={"mask": torch.rand(1, 6).double(), "head": "b", "twice": False}), 2, 3)


Pair = namedtuple("Pair", ["logits", "features"])


@dataclass
class Answer:
    logits: Tensor
    features: Tensor


RESULTS = {
    "a tuple": (lambda y, h: (h, y), 1),
    "a list": (lambda y, h: [y, h], 0),
    "a dict": (lambda y, h: {"logits": y, "features": h}, "logits"),
    "a named tuple": (lambda y, h: Pair(y, h), "logits"),
    "an object": (lambda y, h: Answer(y, h), "logits"),
}


FIRST = {name: 0 if name in ("a tuple", "a list") else "logits" for name in RESULTS}  # what the message names


@pytest.mark.parametrize("name", RESULTS)
def test_one_of_several_outputs_is_chosen(name):
    make, output = RESULTS[name]

    def forward(m: Wrap, x: Tensor) -> object:
        h = m.first(x.flatten(1))
        return make(m.second(h), h)

    torch.manual_seed(0)
    check(Selected(Wrap(forward), output=output), 2, 3)
    with pytest.raises(
        ValueError, match=rf"choose one with ctbench\.networks\.Selected\(model, output={FIRST[name]!r}\)"
    ):
        trace(Wrap(forward), (2, 3))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.image, self.facts = nn.Linear(6, 4), nn.Linear(3, 4)

    def forward(self, image: Tensor, facts: Tensor) -> Tensor:
        return self.image(image.flatten(1)) + self.facts(facts)


def test_one_of_several_inputs_varies():
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"second argument 'facts' without a default: .*Selected\(model, given="):
        trace(Two(), (2, 3))
    facts, image = torch.rand(1, 3), torch.rand(1, 2, 3)
    for model, x, shape in (
        (Selected(Two(), given={"facts": facts}), image, (2, 3)),
        (Selected(Two(), argument="facts", given={"image": image}), facts, (3,)),
    ):
        lower, upper = bounds(model, x, eps=0.0)
        assert x.shape[1:] == shape
        torch.testing.assert_close(lower, model(x), atol=1e-5, rtol=0)
        torch.testing.assert_close(upper, model(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Selected(Two()), r"Two.forward takes \(image: .*, facts: .*\).*, given are none besides the first"),
        (lambda: Selected(Two(), given={"fact": 1}), r"given are 'fact' besides the first argument .* given=\{'mask'"),
        (lambda: Selected(Two(), argument="x", given={"facts": 1}), "given are 'facts' besides 'x'"),
    ],
)
def test_arguments_that_a_network_does_not_have_are_said_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "output", "there"),
    [
        ("a dict", "z", "a dict of 'logits', 'features'"),
        ("a dict", 0, "a dict of 'logits', 'features'"),
        ("a tuple", 2, "a tuple of 2"),
        ("a list", "logits", "a list of 2"),
        ("a named tuple", "z", "a Pair with 'logits', 'features'"),
        ("an object", "z", "a Answer with 'logits', 'features'"),
    ],
)
def test_an_output_that_a_network_does_not_have_is_said(name, output, there):
    model = Selected(Wrap(lambda m, x: RESULTS[name][0](m.second(x.flatten(1)), x)), output=output)
    for call in (lambda: model(torch.rand(1, 2, 3)), lambda: trace(model, (2, 3))):
        with pytest.raises(ValueError, match=rf"^the network has no output {output!r}: it returns {there}; choose one"):
            call()


def test_one_score_is_two_logits():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(6, 1)), torch.rand(4, 2, 3)
    y = (model(x)[:, 0] > 0).long()
    with pytest.raises(ValueError, match=r"for one score z, use ctbench\.networks\.TwoClasses\(model\)"):
        certify(model, x, y, eps=0.0)
    assert [record.verdict.value for record in certify(TwoClasses(model), x, y, eps=0.0).records] == ["certified"] * 4
    check(TwoClasses(nn.Sequential(nn.Flatten(), nn.Linear(6, 1))), 2, 3)


class Cells(nn.Module):
    """Cells whose first states are zeros and ones in the shape of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm, self.rnn = nn.GRUCell(3, 4), nn.LSTMCell(4, 4), nn.RNNCell(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        h, c = x.new_zeros(x.shape[0], 4), torch.ones(len(x), 4, dtype=x.dtype)
        last = torch.full_like(x[:, 0, :2], 0.5)
        for step in range(2):
            h = self.gru(x[:, step], h)
            h, c = self.lstm(h, (h, c))
            last = self.rnn(h, last)
        return last


def test_states_of_cells_may_be_constants():
    torch.manual_seed(0)
    check(Cells(), 2, 3)
    model = Wrap(lambda m, x: m.cell(x[:, 0], x.new_zeros(1, 4)))
    model.cell = nn.RNNCell(3, 5)
    with pytest.raises(ValueError, match=r"'cell' starts from .* of shape \[1, 4\]: give the state of one .* \[1, 5\]"):
        trace(model, (2, 3))


def test_a_forward_that_asks_for_a_tensor_is_exported():
    def forward(m: Wrap, x: Tensor) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"expected a tensor, got {type(x)}")
        return m.second(F.relu(m.first(x.flatten(1))) + x.view(x.size(0), -1))

    torch.manual_seed(0)
    model = Wrap(forward)
    check(model, 2, 3)
    graph = trace(model, (2, 3))
    weights = [node.op.weight for node in graph.nodes if hasattr(node.op, "weight")]
    assert any(weight is model.first.weight for weight in weights)  # it follows the training


def test_a_forward_that_branches_on_values_says_what_stopped_both():
    with pytest.raises(
        ValueError, match=r"cannot be traced \(.*\), and torch\.export cannot export it \(.*\): it must not"
    ):
        trace(Wrap(lambda m, x: m.second(x.flatten(1)) if x.sum() > 0 else x.flatten(1)), (2, 3))


def test_multiples_of_the_batch_are_refused():
    with pytest.raises(ValueError, match="computes 2 times the size of the batch"):
        trace(Wrap(lambda m, x: m.first(x.reshape(len(x) * 2, 3))), (2, 3))


class FromZeros(nn.Module):
    """A recurrent layer that begins with states which its forward makes."""

    def __init__(self, kind: type[nn.Module], first: float = 0.0, **options) -> None:
        super().__init__()
        self.layer, self.first = kind(3, 4, batch_first=True, **options), first

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_full((1, x.shape[0], 4), self.first)
        states = (state, torch.zeros_like(state)) if isinstance(self.layer, nn.LSTM) else state
        return self.layer(x, states)[0][:, -1]


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_recurrent_layer_may_begin_with_zeros_that_the_forward_makes(kind):
    torch.manual_seed(0)
    model, x = FromZeros(kind).double(), torch.randn(5, 6, 3, dtype=torch.float64)
    torch.testing.assert_close(trace(model, (6, 3))(x), model(x))
    with pytest.raises(UnsupportedLayerError, match="must begin with states of 0"):
        trace(FromZeros(kind, first=0.5), (6, 3))


def test_a_recurrent_layer_with_projections_says_what_to_do():
    model = nn.Sequential(nn.LSTM(3, 4, batch_first=True, proj_size=2))
    with pytest.raises(UnsupportedLayerError, match="has proj_size=2: set it to 0, and add a linear layer"):
        trace(model, (6, 3))
