"""Weights of others: layouts of their names, wrappers around their state dicts, and what is refused."""

import argparse
import copy
import pickle
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import ctbench
from ctbench.networks import CNN5, CNN7, Normalize
from ctbench.results import Verdict
from ctbench.training import Matching, load_weights
from ctbench.verify import FAST_STAGES

State = dict[str, Tensor]
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)


def network(*, mean=MEAN, std=STD, batch_norm: bool = True) -> nn.Sequential:
    torch.manual_seed(1)
    return CNN7(width=2, hidden=8, batch_norm=batch_norm).build((3, 8, 8), 5, mean=mean, std=std).eval()


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch):
    """DataParallel moves its network to any accelerator, e.g. to the simulated one of other tests."""
    module = sys.modules["torch.nn.parallel.data_parallel"]  # the package has a function of the same name
    monkeypatch.setattr(module, "_get_available_device_type", lambda: None)


@pytest.fixture
def trained() -> nn.Sequential:
    """A network with random weights, statistics and constants."""
    model = network()
    torch.manual_seed(2)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.1, 0.9)
    return model


def sequential(state: State) -> State:
    """A plain nn.Sequential."""
    return state


def blocks(state: State) -> State:
    """SABR's and TAPS's networks: `blocks`, whose first layer normalises with mean and sigma [1, C, 1, 1]."""
    renamed = {f"blocks.{name}": value for name, value in state.items()}
    mean, std = renamed.pop("blocks.0.mean"), renamed.pop("blocks.0.std")
    return {"blocks.0.mean": mean[None], "blocks.0.sigma": std[None], **renamed}


def layers(state: State) -> State:
    """The same as abstract networks: slopes of the ReLUs, and the statistics of the last batch."""
    renamed = {name.replace("blocks", "layers"): value for name, value in blocks(state).items()}
    for name in [name for name in renamed if name.endswith("running_mean")]:
        layer = name.removesuffix(".running_mean")
        renamed |= {f"{layer}.current_mean": torch.zeros(2), f"{layer}.current_var": torch.ones(2)}
        renamed[f"layers.{int(layer.removeprefix('layers.')) + 1}.deepz_lambda"] = torch.ones(2, 8, 8)
    return renamed


def without_counters(state: State) -> State:
    return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def named(state: State) -> State:
    """Attributes of a module, in another order: conv1 ..., norm1 ..., fc1 ..."""
    kinds = {4: "conv", 2: "fc"}
    tensors, counts, names = {}, dict[str, int](), dict[str, str]()
    for name, value in state.items():
        layer, _, leaf = name.rpartition(".")
        if layer not in names:
            shape = state.get(f"{layer}.weight", value).dim()
            kind = "normalize" if leaf in ("mean", "std") else kinds.get(shape, "norm")
            counts[kind] = counts.get(kind, 0) + 1
            names[layer] = f"{kind}{counts[kind]}" if kind != "normalize" else kind
        tensors[f"{names[layer]}.{leaf}"] = value
    return dict(sorted(tensors.items()))


LAYOUTS: list[Callable[[State], State]] = [sequential, blocks, layers, without_counters, named]
WRAPPED: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "DataParallel": lambda state: {f"module.{name}": value for name, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.module.{name}": value for name, value in state.items()},
    "checkpoint": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"state": {}, "lr": 0.1}},
    "model": lambda state: {"model": {f"net.{name}": value for name, value in state.items()}, "acc": 0.5},
    "convex_adversarial": lambda state: {"state_dict": [state], "err": 0.1, "epoch": 2},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_layout_of_others_is_the_same_network(trained, tmp_path, layout, suffix):
    path, state = tmp_path / f"weights{suffix}", layout(trained.state_dict())
    if suffix == ".pt":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file({name: value.clone().contiguous() for name, value in state.items()}, path)
    model = network(mean=(0.0,) * 3, std=(1.0,) * 3)
    matching = load_weights(model, path)
    x = torch.rand(4, 3, 8, 8)
    assert torch.equal(model(x), trained(x))
    assert matching.by == ("name" if layout in (sequential, without_counters) else "order")
    assert {ours for _, ours in matching.pairs} >= {"1.weight", "2.running_var", "20.bias"}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapper_is_unwrapped(trained, tmp_path, wrap):
    torch.save(wrap(trained.state_dict()), tmp_path / "weights.pth")
    model = network()
    load_weights(model, tmp_path / "weights.pth")
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in model.state_dict().items())


def test_the_report_says_which_tensor_became_which(trained, tmp_path):
    torch.save(layers(trained.state_dict()), tmp_path / "weights.pt")
    report = str(load_weights(network(), tmp_path / "weights.pt"))
    assert "matched by shape and order: " in report
    assert "layers.1 as 1" in report
    assert "layers.0.sigma as 0.std" in report
    assert "not needed: " in report
    assert "layers.3.deepz_lambda" in report


def test_weights_without_normalisation_keep_that_of_the_network(trained, tmp_path):
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith("0.")}
    torch.save(
        {f"{int(n.split('.')[0]) - 1}.{n.split('.')[1]}": value for n, value in state.items()}, tmp_path / "w.pt"
    )
    model = network()
    matching = load_weights(model, tmp_path / "w.pt")
    assert {"0.mean", "0.std"} <= set(matching.kept)
    assert isinstance(model[0], Normalize)
    assert torch.equal(model[0].mean.flatten(), torch.tensor(MEAN))
    assert torch.equal(model[1].weight, trained[1].weight)


def test_weights_with_normalisation_need_a_network_that_normalises(trained, tmp_path):
    torch.save(blocks(trained.state_dict()), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"normalises its inputs \(blocks\.0\), and the network does not.*--normalize"):
        load_weights(network(mean=None, std=None), tmp_path / "w.pt")


class TwoNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.middle, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)


def test_an_order_that_names_leave_open_is_refused(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    torch.save(TwoNames().state_dict(), tmp_path / "w.pt")
    before = copy.deepcopy(model.state_dict())
    said = r"hidden, middle have the same shapes, and their names leave their order open: the file has hidden \[4, 4\]"
    with pytest.raises(ValueError, match=said):
        load_weights(model, tmp_path / "w.pt")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_other_shapes_are_refused_with_both_lists(trained, tmp_path):
    torch.save(blocks(trained.state_dict()), tmp_path / "w.pt")
    model = CNN5(width=2, hidden=8).build((3, 8, 8), 5, mean=MEAN, std=STD)
    said = r"another network: .*the file has blocks\.1 \[2, 3, 3, 3\].*; the network has 1 \[2, 3, 3, 3\]"
    with pytest.raises(ValueError, match=said):
        load_weights(model, tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"epoch": 1}, "holds no state dict: save model.state_dict"),
        (
            {"state_dict": [{"a.weight": torch.ones(1)}] * 2},
            r"holds 2 state dicts \(state_dict\[0\], state_dict\[1\]\)",
        ),
        ({"model": {"a": torch.ones(1)}, "net": {"a": torch.ones(1)}}, r"holds 2 state dicts \(model, net\)"),
    ],
)
def test_what_is_not_one_state_dict_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=said):
        load_weights(network(), tmp_path / "w.pt")


class Evil:
    ran: Path

    def __reduce__(self):
        return (Path.touch, (self.ran,))


@pytest.mark.parametrize(
    "save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_a_pickle_runs_no_code_and_two_lines_say_how_to_convert_it(tmp_path, save):
    Evil.ran = tmp_path / "ran"
    for content in (nn.Linear(2, 2), {"state_dict": {"w": torch.ones(2)}, "args": Evil()}):
        save(content, tmp_path / "net.pth")
        with pytest.raises(ValueError, match=r"net\.pth is (a pickle of more than tensors|damaged)") as error:
            load_weights(network(), tmp_path / "net.pth")
        assert not Evil.ran.exists()
        if save is torch.save:
            assert 'torch.save(model.state_dict(), "net_weights.pt")' in str(error.value)


@pytest.mark.parametrize("content", [b"", b"not a pickle", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pt is (damaged|a pickle)"):
        load_weights(network(), tmp_path / "w.pt")


def test_a_network_in_wrappers_is_that_network(trained):
    x, y = torch.rand(3, 3, 8, 8), torch.arange(3)
    expected = ctbench.bounds(trained, x, eps=0.01).lower
    for wrapped in (
        nn.DataParallel(trained),
        torch.compile(trained, backend="eager"),
        torch.compile(nn.DataParallel(trained), backend="eager"),
    ):
        assert torch.equal(ctbench.bounds(wrapped, x, eps=0.01).lower, expected)
        verdicts = [record.verdict for record in ctbench.certify(wrapped, x, y, eps=0.01, stages=FAST_STAGES)]
        assert verdicts == [record.verdict for record in ctbench.certify(trained, x, y, eps=0.01, stages=FAST_STAGES)]
        found = ctbench.attacks.adversarial_accuracy(wrapped, x, y, eps=0.01, attacks=("pgd",))
        assert len(found.labels) == 3


class Negated(nn.DataParallel):
    def forward(self, x):
        return -self.module(x)


class Hidden(nn.Module):
    """Has a submodule that is called like that of a compiled module, and computes something else."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._orig_mod = inner

    def forward(self, x):
        return -self._orig_mod(x)


def hooked(wrapper: nn.Module) -> nn.Module:
    wrapper.register_forward_hook(lambda module, inputs, output: -output)
    return wrapper


@pytest.mark.parametrize(
    ("wrap", "refused"),
    [
        (Negated, False),
        (Hidden, False),
        (lambda net: hooked(nn.DataParallel(net)), True),
        (lambda net: hooked(torch.compile(net, backend="eager")), True),
        (lambda net: nn.DataParallel(hooked(nn.DataParallel(net))), True),
    ],
    ids=["a subclass", "a name", "a hook", "a hook of a compiled module", "a hook inside"],
)
def test_a_wrapper_that_computes_something_else_is_never_certified_as_its_network(trained, wrap, refused):
    x = torch.rand(4, 3, 8, 8)
    y = trained(x).argmax(1)
    model = wrap(trained)
    assert (model(x).argmax(1) != y).all()
    with pytest.raises(ValueError, match=r"forward hooks|cannot be traced|has no op") if refused else nullcontext():
        records = ctbench.certify(model, x, y, eps=0.0, stages=FAST_STAGES)
        assert {record.verdict for record in records} == {Verdict.MISCLASSIFIED}


def test_a_network_in_a_wrapper_is_saved_and_loaded_as_that_network(trained, tmp_path):
    ctbench.save_onnx(nn.DataParallel(trained), tmp_path / "net.onnx", (3, 8, 8))
    x = torch.rand(3, 3, 8, 8)
    assert torch.allclose(ctbench.load_onnx(tmp_path / "net.onnx")(x), trained(x), atol=1e-5)
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    wrapped = torch.compile(network(), backend="eager")
    load_weights(wrapped, tmp_path / "w.pt")
    assert torch.equal(wrapped._orig_mod(x), trained(x))


def test_a_checkpoint_with_more_than_tensors_is_refused_with_lines_that_convert_it(tmp_path):
    model = nn.Linear(3, 2)
    path = tmp_path / "net.pth"
    torch.save({"state_dict": model.state_dict(), "args": argparse.Namespace(lr=0.1)}, path)
    with pytest.raises(ValueError, match=r"it holds a argparse.Namespace.*save model\[.state_dict.\] instead") as error:
        ctbench.load_weights(model, path)
    assert "add_safe_globals" not in str(error.value)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"it is empty"):
        ctbench.load_weights(model, path)


def test_the_report_of_a_matching_names_layers_in_the_order_of_the_network():
    pairs = (("a.9.weight", "9.weight"), ("a.2.weight", "2.weight"), ("a.2.bias", "2.bias"))
    said = str(Matching("order", pairs, unused=("a.3.num_batches_tracked", "a.other")))
    expected = "3 tensors were matched by shape and order: a.2 as 2, a.9 as 9; not needed: a.other"
    assert said == expected
