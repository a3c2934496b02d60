"""Weights on disk: what comes back, and what is refused."""

import json
import pickle
import re

import pytest
import safetensors
import safetensors.torch
import torch
from torch import nn

from ctbench.networks import CNN3, MLP
from ctbench.training import load_network, load_weights
from ctbench.training.blueprint import Blueprint
from ctbench.training.checkpoints import epochs_done, load_state, restore, save_network, save_state

SMALL = Blueprint(network=CNN3(width=2), input_shape=(1, 8, 8), classes=10, mean=(0.2,), std=(0.5,))


@pytest.fixture
def saved(tmp_path):
    model = SMALL.build(seed=1).train()
    model(torch.rand(8, 1, 8, 8))  # moves the running statistics
    path = tmp_path / "weights.safetensors"
    save_network(model, SMALL, path)
    return path, model.eval()


def optimized(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = SMALL.build(seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.rand(8, 1, 8, 8)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_a_file_alone_makes_the_network(saved):
    path, model = saved
    again = load_network(path)
    assert not again.training
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(again(x), model(x))
    assert load_network(str(path)) is not None


def test_the_blueprint_stands_in_the_file(saved):
    with safetensors.safe_open(saved[0], framework="pt") as file:
        blueprint = json.loads(file.metadata()["blueprint"])
    assert blueprint == {
        "network": {"name": "cnn3", "width": 2, "batch_norm": True},
        "input_shape": [1, 8, 8],
        "classes": 10,
        "mean": [0.2],
        "std": [0.5],
    }


def test_weights_are_loaded_into_the_same_network(saved):
    path, model = saved
    other = SMALL.build(seed=2)
    load_weights(other, path)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (CNN3(width=3), r"1.weight is \[2, 1, 5, 5\], the network's is \[3, 1, 5, 5\]"),
        (CNN3(width=2, batch_norm=False), r"it has .* too many"),
        (MLP(hidden=(4, 4)), r"it lacks .*; it has .* too many"),
    ],
    ids=["wider", "without batch norm", "mlp"],
)
def test_another_network_is_refused_and_untouched(saved, other, difference):
    model = other.build((1, 8, 8), 10, mean=(0.2,), std=(0.5,))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"holds the weights of another network: .*{difference}"):
        load_weights(model, saved[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kept", [0, 4, 100, -1, -200])
def test_a_truncated_file_is_refused(saved, kept):
    path, _ = saved
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=re.escape(f"{path} is damaged or not a safetensors file")):
        load_network(path)


def test_random_bytes_are_refused(tmp_path):
    path = tmp_path / "noise.safetensors"
    path.write_bytes(bytes(torch.randint(256, (4096,), generator=torch.Generator().manual_seed(0)).tolist()))
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        load_network(path)


class Bomb:
    """Unpickling it is seen at once."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


def test_a_pickle_is_refused_and_never_run(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        load_network(path)
    torch.save(SMALL.build().state_dict(), path)
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        load_network(path)


@pytest.mark.parametrize("load", [load_network, load_state, lambda path: load_weights(SMALL.build(), path)])
def test_a_missing_file_is_named(tmp_path, load):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nowhere\.safetensors"):
        load(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(saved, value):
    path, model = saved
    with torch.no_grad():
        model[4].weight[0, 0, 0, 0] = value
    save_network(model, SMALL, path)
    with pytest.raises(ValueError, match=r"4.weight holds NaN or infinite values"):
        load_network(path)


def test_a_file_without_a_blueprint_asks_for_the_network(saved):
    path, model = saved
    safetensors.torch.save_file(dict(model.state_dict()), path)
    with pytest.raises(ValueError, match="does not say which network it is for: give the folder of its run, or name"):
        load_network(path)
    other = SMALL.build(seed=2)
    load_weights(other, path)
    assert torch.equal(other[1].weight, model[1].weight)


def test_nothing_unfinished_is_left(saved):
    assert [path.name for path in saved[0].parent.iterdir()] == ["weights.safetensors"]


def test_a_state_comes_back_whole(tmp_path):
    model, optimizer = optimized()
    save_state(tmp_path / "state", model, optimizer, 4, "abc")
    state = load_state(tmp_path / "state")
    assert (state.epochs_done, state.made_of) == (4, "abc")
    other, fresh = SMALL.build(seed=9), None
    fresh = torch.optim.Adam(other.parameters(), fused=True)
    restore(state, other, fresh, tmp_path / "state")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    before, after = optimizer.state_dict()["state"], fresh.state_dict()["state"]
    assert before.keys() == after.keys()
    for index, entries in before.items():
        assert entries.keys() == after[index].keys() == {"step", "exp_avg", "exp_avg_sq"}
        assert all(torch.equal(value, after[index][key]) for key, value in entries.items())


def test_the_epochs_of_a_state_are_read_without_its_tensors(tmp_path, saved, monkeypatch):
    path = tmp_path / "state.safetensors"
    save_state(path, *optimized(), 7, "hash")
    monkeypatch.setattr("ctbench.training.tensor_files.read", lambda _: pytest.fail("tensors are read"))
    assert epochs_done(path) == 7
    with pytest.raises(ValueError, match="is not the state of a run"):
        epochs_done(saved[0])
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"state.safetensors is damaged or not a safetensors file"):
        epochs_done(path)


def test_weights_alone_are_no_state(saved):
    with pytest.raises(ValueError, match="is not the state of a run"):
        load_state(saved[0])
