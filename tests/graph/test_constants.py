"""Constants that are computed from parameters follow the training, and an RMS norm keeps the eps of its precision."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctbench import bounds, certify
from ctbench.graph import Precisions, UnsupportedLayerError, freeze, split, trace
from ctbench.graph.ops import BatchNorm, Known
from ctbench.regions import Box, Linf
from ctbench.training.processes import Processes, Share, SharedBatchNorm


class Prototypes(nn.Module):
    """Cosines between features and one vector for each class."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm, self.prototypes = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(self.norm(self.layer(x))), F.normalize(self.prototypes))


def test_a_graph_follows_the_training_of_what_it_is_computed_from():
    """One graph for all steps, with the gradients and the weights that torch computes."""
    model, x = Prototypes(), torch.randn(8, 4)
    other = copy.deepcopy(model)
    graph = trace(model, (4,))
    optimizers = [torch.optim.SGD(each.parameters(), 0.5) for each in (model, other)]
    for _ in range(3):
        for outputs, optimizer in zip((freeze(graph, x, training=True)[1], other(x)), optimizers, strict=True):
            optimizer.zero_grad()
            outputs.square().sum().backward()
            optimizer.step()
    for one, each in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one, each, rtol=1e-4, atol=1e-5)
    assert not torch.equal(model.prototypes, Prototypes().prototypes)


def test_a_frozen_graph_computes_nothing_again():
    model, x = Prototypes(), torch.randn(8, 4)
    graph = trace(model, (4,))
    frozen, before = freeze(graph, x)
    assert graph.again is not None
    assert frozen.again is None
    with torch.no_grad():
        model.prototypes.neg_()
    torch.testing.assert_close(frozen(x), before)
    torch.testing.assert_close(freeze(graph, x)[1], -before)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_a_copy_follows_the_copy_of_the_network(copied):
    """Workers get a network and its graph together."""
    model, x = Prototypes(), torch.randn(8, 4)
    graph = trace(model, (4,))
    other, theirs = copied((model, graph))
    with torch.no_grad():
        other.prototypes.neg_()
    for _ in range(2):
        torch.testing.assert_close(freeze(theirs, x)[1], other.eval()(x))
        torch.testing.assert_close(freeze(graph, x)[1], model.eval()(x))


def test_a_graph_that_is_traced_without_gradients_follows_too():
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shifts = nn.Parameter(torch.rand(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x - self.shifts[0]

    model, x = Shifted(), torch.rand(3, 4)
    with torch.no_grad():
        graph = trace(model, (4,))
        model.shifts.add_(1.0)
    torch.testing.assert_close(freeze(graph, x)[1], model(x))
    freeze(graph, x)[1].sum().backward()
    assert model.shifts.grad is not None


@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_embeddings_of_positions_follow_the_training(max_norm):
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions, self.layer = nn.Embedding(5, 4, max_norm=max_norm), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x + self.positions(torch.arange(x.shape[1], device=x.device))).flatten(1)

    torch.manual_seed(0)
    model, x = Positions(), torch.randn(3, 5, 4)
    if max_norm is not None:
        with pytest.raises(UnsupportedLayerError, match=r"max_norm=1\.0, so it changes its weights"):
            trace(model, (5, 4))
        return
    graph = trace(model, (5, 4))
    freeze(graph, x)[1].square().sum().backward()
    gradient = model.positions.weight.grad.clone()
    model.zero_grad()
    model(x).square().sum().backward()
    torch.testing.assert_close(gradient, model.positions.weight.grad)
    assert verdicts(model, x) == {"certified"}


def test_constants_of_buffers_alone_are_computed_once():
    class Buffers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.rand(4))

        def forward(self, x: Tensor) -> Tensor:
            return (x - self.mean) / (self.mean + 1)

    assert trace(Buffers(), (4,)).again is None


def test_batch_norms_of_several_processes_stay_shared():
    graph = trace(Prototypes(), (4,))
    shared = Processes(rank=0, count=2).synchronised(graph, Share(slice(0, 4), 0.5, 8))
    assert shared.again is not None
    for each in (shared, shared.again()):
        kinds = [type(node.op) for node in each.nodes]
        assert SharedBatchNorm in kinds
        assert BatchNorm not in kinds


def test_a_graph_that_is_not_frozen_is_not_split():
    graph, x = trace(Prototypes().eval(), (4,)), torch.randn(5, 4)
    with pytest.raises(
        ValueError, match=r"computes constants from parameters when it is frozen: call freeze\(graph, x"
    ):
        split(graph, 1)
    front, back = split(freeze(graph, x)[0], 1)
    torch.testing.assert_close(back(front(x)), Prototypes().eval()(x))


def verdicts(model: nn.Module, x: Tensor) -> set[str]:
    y = model(x).argmax(1)
    return {record.verdict.value for record in certify(model, x, y, Linf(1e-4, clip=None)).records}


def test_weights_that_torch_rounds_certify_nothing_until_they_are_stored():
    """A verdict holds in the exact arithmetic of stored weights."""

    class Stored(Prototypes):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(F.normalize(self.norm(self.layer(x))), self.prototypes)

    model, x = Prototypes().eval(), torch.randn(6, 4)
    with pytest.raises(
        UnsupportedLayerError, match=r"\(normalize\) computes with parameters .* store it as a parameter"
    ):
        verdicts(model, x)
    with pytest.raises(UnsupportedLayerError, match="torch rounds the result"):
        bounds(model.double(), Linf(1e-4, clip=None).region(x.double()))
    stored = Stored().eval()
    with torch.no_grad():
        stored.load_state_dict(model.float().state_dict())
        stored.prototypes.copy_(F.normalize(model.prototypes))
    assert verdicts(stored, x) == {"certified"}


def test_weights_that_torch_does_not_round_certify():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.scale = nn.Linear(4, 3), nn.Parameter(torch.tensor([0.1, 0.2, -0.1]))

        def forward(self, x: Tensor) -> Tensor:
            return (1 + self.scale) * self.layer(x) * self.scale.sign().abs() + torch.relu(self.scale * 3)

    torch.manual_seed(0)
    model, x = Scaled(), torch.randn(4, 4)
    assert verdicts(model, x) == {"certified"}
    full = model.double()
    with torch.no_grad():
        full.scale.div_(3)  # to digits in the last place, which a sum with 1 loses
    with pytest.raises(UnsupportedLayerError, match="torch rounds the result"):
        verdicts(full, x.double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_an_rms_norm_has_the_eps_of_the_precision_of_its_network(dtype, affine):
    """Also in proofs, which are in double precision: there are inputs for which it is most of the norm."""
    norm = nn.RMSNorm(4, elementwise_affine=affine).to(dtype)
    x = 1e-4 * torch.randn(2, 4, dtype=dtype)
    for model in (norm, nn.Sequential(norm, nn.Linear(4, 4, dtype=dtype)))[0 if affine else 1 :]:
        lower, upper = bounds(model, Box(x, x))
        for end in (lower, upper):
            torch.testing.assert_close(end, model(x), rtol=1e-4, atol=1e-5)
        twin = Precisions.of(model, x[:1])
        torch.testing.assert_close(twin.proof(x.double()), model(x).double(), rtol=1e-4, atol=1e-5)
        assert norm.eps is None


def test_an_rms_norm_without_an_eps_needs_a_network_with_a_precision():
    with pytest.raises(ValueError, match=r"whose eps depends on the precision: give a number, e.g. eps=torch.finfo"):
        trace(nn.Sequential(nn.RMSNorm(4, elementwise_affine=False)), (4,))


@pytest.mark.parametrize("is_trained", [False, True])
def test_a_factor_that_training_may_make_negative_is_not_known_to_be_positive(is_trained):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(4), requires_grad=is_trained)

        def forward(self, x: Tensor) -> Tensor:
            return (x.abs() * self.factor) ** 1.5

    assert any(isinstance(node.op, Known) for node in trace(Scaled(), (4,)).nodes) is not is_trained
