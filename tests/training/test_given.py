"""Modules and data of one's own: trained, recorded, resumed, recognised, and certified from their run folder."""

import json
from dataclasses import dataclass, replace
from importlib import import_module
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from tests.training_runs import Killed, interrupt_at, same
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import ctbench
from ctbench.analyses.corrupted_tests import CorruptedTests
from ctbench.cli import main
from ctbench.datasets import Data, Digits, GivenData
from ctbench.networks import Architecture, Given
from ctbench.results import jsonl
from ctbench.training import Recipe, load_run, train
from ctbench.verify import FAST_STAGES


class Net(nn.Module):
    """A residual network with a batch norm."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, width, 3, 2, 1), nn.BatchNorm2d(width)
        self.second, self.last = nn.Conv2d(width, width, 3, 1, 1), nn.Linear(16 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(self.norm(self.first(x)))
        return self.last((z + F.relu(self.second(z))).flatten(1))


class Other(Net):
    """The same weights, another computation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.norm(self.first(x))).flatten(1))


def net(seed: int = 0, kind: type[Net] = Net) -> Net:
    torch.manual_seed(seed)
    return kind()


def digits(count: int = 300) -> Data:
    data = Digits().load()
    return Data.of(data.train[:count], data.test[:60], classes=10)


@pytest.fixture
def recipe(tiny) -> Recipe:
    return tiny(shi=0.0, batch_size=100)


def test_a_module_of_ones_own_is_trained_on_data_of_ones_own(recipe, tmp_path):
    model, data = net(), digits()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = train(recipe, model=model, data=data, out=tmp_path / "run", quiet=True)
    assert same(before, model.state_dict())  # a copy is trained
    assert isinstance(run.model, Net)
    assert not same(before, run.model.state_dict())
    metrics = jsonl.read(run.folder.metrics)
    assert metrics[-1]["natural_loss"] < metrics[0]["natural_loss"]
    recorded = json.loads(run.folder.recipe.read_text())
    assert recorded["network"] == {"name": "given", **vars(Given.of(model))}
    assert recorded["network"]["module"].endswith("test_given.Net")
    assert recorded["initialization"] == "given"
    assert recorded["dataset"]["digest"] == GivenData.of(data, recipe.dataset.augmentation).digest
    assert Recipe.from_json(recorded) == run.recipe


def test_a_run_is_resumed_to_the_same_bits(recipe, tmp_path, monkeypatch):
    whole = train(recipe, model=net(), data=digits(), out=tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 5)
        with pytest.raises(Killed):
            train(recipe, model=net(), data=digits(), out=tmp_path / "cut", quiet=True)
    resumed = train(recipe, model=net(), data=digits(), out=tmp_path / "cut", resume=True, quiet=True)
    assert same(whole.model.state_dict(), resumed.model.state_dict())
    interrupt_at(monkeypatch, 1)
    again = train(recipe, model=net(), data=digits(), out=tmp_path / "cut", resume=True, quiet=True)
    assert same(whole.model.state_dict(), again.model.state_dict())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": net(1)}, r"network\.weights differs, those at the start: build the module with the same weights"),
        ({"model": net(kind=Other)}, r"network\.module, network\.source differ\)"),
        ({"data": digits(299)}, r"dataset\.digest differs"),
    ],
)
def test_another_module_or_other_data_are_another_run(recipe, tmp_path, change, said):
    given = {"model": net(), "data": digits()}
    train(recipe, **given, out=tmp_path, quiet=True)
    with pytest.raises(ValueError, match=said):
        train(recipe, **(given | change), out=tmp_path, resume=True, quiet=True)


def test_a_run_is_loaded_with_its_module_or_as_a_graph(recipe, tmp_path):
    run = train(recipe, model=net(), data=digits(), out=tmp_path, quiet=True)
    x, y = digits().test[:20]
    loaded = load_run(tmp_path, model=net(7))
    assert isinstance(loaded.model, Net)
    assert torch.equal(loaded.model(x), run.model(x))
    graph = load_run(tmp_path).model
    assert torch.allclose(graph(x), run.model(x), atol=1e-5)
    accuracies = [
        ctbench.certify(m, x, y, eps=0.02, stages=FAST_STAGES).certified_accuracy for m in (graph, loaded.model)
    ]
    assert accuracies[0] == accuracies[1]
    with pytest.warns(UserWarning, match="has another source than when"):
        load_run(tmp_path, model=net(kind=Other))
    with (
        pytest.raises(ValueError, match="holds the weights of another network"),
        pytest.warns(UserWarning, match="another source"),
    ):
        load_run(tmp_path, model=nn.Linear(2, 2))
    run.folder.exported.unlink()
    with pytest.raises(ValueError, match=r"Net, a module of your own, and only its weights are stored: give the run f"):
        load_run(tmp_path)
    with pytest.raises(
        ValueError, match=r"were given in memory and are not stored: give them again, ctbench\.load_run"
    ):
        run.recipe.dataset.load()


def test_a_module_is_refused_for_a_run_of_a_named_network(recipe, tmp_path):
    train(recipe, out=tmp_path, quiet=True)
    with pytest.raises(ValueError, match="has the network 'cnn3', no module of your own: leave it out"):
        load_run(tmp_path, model=net())


def test_a_recipe_of_a_given_network_names_no_other_initialization(recipe):
    with pytest.raises(ValueError, match="initialization is 'shi' for the network 'given'"):
        replace(recipe, network=Given.of(net()))
    with pytest.raises(ValueError, match="initialization is 'given' for the network 'cnn3'"):
        replace(recipe, initialization="given")


def test_too_few_logits_are_refused(recipe, tmp_path):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9))
    with pytest.raises(ValueError, match="the network has 9 logits, and the data have 10 classes"):
        train(recipe, model=model, data=digits(), out=tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": net().double()}, "the parameters are torch.float64: training takes float32"),
        ({"model": 3}, "the model is a int: give a torch.nn.Module"),
        (
            {"data": (torch.rand(2, 4), torch.zeros(2))},
            r"data is a tuple: give ctbench.datasets.Data.of\(...\), or a f",
        ),
    ],
)
def test_what_cannot_be_given_is_refused_before_anything_is_written(recipe, tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        train(recipe, **given, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------------------------------------ data


def test_data_come_from_tensors_arrays_data_sets_and_loaders():
    x, y = torch.rand(40, 1, 8, 8), torch.arange(40) % 3
    pair = Data.of((x, y), (x[:5], y[:5]), mean=(0.5,), std=(0.2,))
    assert (pair.classes, pair.mean, pair.std) == (3, (0.5,), (0.2,))
    sources = (
        (x.numpy(), y.numpy().astype(np.int32)),
        TensorDataset(x, y),
        DataLoader(TensorDataset(x, y), batch_size=7),
        [*zip(x, y.tolist(), strict=True)],
    )
    for source in sources[:3]:
        data = Data.of(source, (x[:5], y[:5]))
        assert torch.equal(data.train.inputs, x)
        assert torch.equal(data.train.labels, y)
    with pytest.raises(ValueError, match="the data are a list: give"):
        Data.of(sources[3], (x, y))
    assert Data.of((x.flatten(1), y), (x.flatten(1), y), classes=("a", "b", "c")).class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ((torch.rand(4, 8, 8), torch.zeros(4).long()), r"shape \[4, 8, 8\]: give images .*grey ones as x\[:, None\]"),
        ((torch.rand(4, 1, 8, 8) * 255, torch.zeros(4).long()), r"pixels lie in .*; scale them to \[0, 1\]"),
        ((torch.rand(4, 1, 8, 8), torch.zeros(3).long()), "give one label per input"),
        ((torch.rand(4, 1, 8, 8), torch.zeros(4)), "labels are torch.float32"),
        (3, "the data are a int: give"),
    ],
)
def test_data_that_cannot_be_are_explained(source, said):
    with pytest.raises(ValueError, match=said):
        Data.of(source, source)


# ------------------------------------------------------------------------------------------------ architectures


@dataclass(frozen=True, kw_only=True)
class Flexible(Architecture):
    name: ClassVar[str] = "flexible-test-network"
    activation: str = "relu"
    kind: Literal["a", "b"] = "a"
    slope: float = 0.1
    slopes: tuple[float, ...] = (0.1,)
    residual: bool = False
    widths: tuple[int, ...] = (4,)
    bias: str | None = None

    def layers(self, input_shape: tuple[int, ...], classes: int) -> list[nn.Module]:
        activation = {"relu": nn.ReLU(), "leaky": nn.LeakyReLU(self.slope)}[self.activation]
        return [nn.Flatten(), nn.Linear(64, self.widths[0]), activation, nn.Linear(self.widths[0], classes)]


def test_an_architecture_has_fields_of_any_kind(recipe, tmp_path):
    network = Flexible(activation="leaky", slope=0.25, slopes=(0.0, 0.5), residual=True)
    run = train(replace(recipe, network=network, epochs=2), out=tmp_path, quiet=True)
    assert load_run(tmp_path).recipe.network == network
    assert recipe.with_changes(["network=flexible-test-network", "network.slope=0.5"]).network == Flexible(slope=0.5)
    assert isinstance(run.model[2], nn.LeakyReLU)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"widths": (4, 0)}, r"widths is \(4, 0\), which is not a size"),
        ({"slope": float("nan")}, "slope is nan, which cannot stand in a recipe"),
        ({"slopes": [0.1]}, r"slopes is \[0\.1\], which cannot stand in a recipe"),
        ({"activation": nn.ReLU()}, r"activation is ReLU\(\), which cannot stand in a recipe"),
    ],
)
def test_what_cannot_stand_in_a_recipe_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Flexible(**fields)


def test_a_run_on_data_of_ones_own_is_certified_without_naming_them_again(recipe, tmp_path):
    data = digits()
    run = train(recipe, model=net(), data=data, out=tmp_path / "run", quiet=True)
    assert len(ctbench.certify(run, stages=FAST_STAGES)) == len(data.test)
    again = load_run(tmp_path / "run", data=digits())
    assert torch.equal(again.load_data().test.inputs, data.test.inputs)
    with pytest.raises(ValueError, match=r"ctbench.load_run\(folder, data=...\)"):
        ctbench.certify(load_run(tmp_path / "run"), stages=FAST_STAGES)
    with pytest.raises(ValueError, match="these are not the data of the run"):
        load_run(tmp_path / "run", data=digits(200))
    assert repr(run).startswith(f"<Run {recipe.name} in {tmp_path / 'run'}: Net, ")
    assert "\n" not in repr(run)


def test_a_run_on_data_of_ones_own_is_tested_on_corruptions_of_them(recipe, tmp_path):
    train(recipe, model=net(), data=digits(), out=tmp_path / "run", quiet=True)
    fog = CorruptedTests(kinds=("fog",), severities=(1,))
    result = fog(load_run(tmp_path / "run", data=digits()), root=tmp_path)
    assert result.records[0].samples == len(digits().test)
    with pytest.raises(ValueError, match=r"ctbench.load_run\(folder, data=...\)"):
        fog(load_run(tmp_path / "run"))
    here = ["--data-from", "tests.training.test_given:digits", "--set", 'generalisation.kinds=["fog"]']
    assert main(["analyse", str(tmp_path / "run"), "--what", "generalisation", "--samples", "9", *here]) == 0
    assert (tmp_path / "run" / "corrupted" / "ours-9.jsonl").is_file()


def test_data_of_ones_own_are_refused_for_a_run_of_a_named_data_set(tiny, tmp_path):
    train(tiny(), out=tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="has the data 'digits', not data of your own"):
        load_run(tmp_path / "run", data=digits())


def test_the_name_under_which_a_module_was_imported_decides_nothing(recipe, tmp_path, monkeypatch):
    (tmp_path / "nets").mkdir()
    lines = [
        "from torch import nn",
        "class Own(nn.Sequential):",
        "    def forward(self, x):",
        "        return super().forward(x)",
    ]
    (tmp_path / "nets" / "mine_of_test.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path / "nets")
    monkeypatch.syspath_prepend(tmp_path)

    def own(module: str, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return import_module(module).Own(nn.Flatten(), nn.Linear(64, 10))

    short, long = "mine_of_test", "nets.mine_of_test"
    run = train(recipe, model=own(short), data=digits(), out=tmp_path / "run", quiet=True)
    load_run(tmp_path / "run", model=own(long))  # without a warning
    again = train(recipe, model=own(long), data=digits(), out=tmp_path / "run", resume=True, quiet=True)
    assert same(run.model.state_dict(), again.model.state_dict())
    hashes = [replace(run.recipe, network=Given.of(model)).hash for model in (own(short), own(long), own(short, 1))]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_module_without_a_parameter_to_train_is_refused(recipe, tmp_path):
    with pytest.raises(ValueError, match="no parameter of the model requires a gradient"):
        train(recipe, model=net().requires_grad_(False), data=digits(), out=tmp_path / "run")


def test_the_command_that_finishes_a_run_names_the_module_and_the_data(recipe, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 5)
    with pytest.raises(Killed):
        train(recipe, model=net(), data=digits(), out=tmp_path / "cut", quiet=True)
    with pytest.raises(
        FileNotFoundError, match="--resume --model MODULE:FUNCTION --data-from MODULE:FUNCTION finishes"
    ):
        load_run(tmp_path / "cut")


def test_arrays_that_are_read_only_are_copied():
    pixels = np.frombuffer(bytes(range(64)) * 2, np.uint8).reshape(2, 1, 8, 8)
    data = Data.of((pixels, np.array([0, 1])), (pixels, np.array([0, 1])), classes=2)
    assert torch.equal(data.test.inputs, torch.tensor(pixels.tolist(), dtype=torch.uint8))


def test_weights_of_ones_own_module_are_drawn_as_those_of_a_network_of_ctbench():
    drawn, again = net(0), net(1)
    for model in (drawn, again):
        torch.manual_seed(5)
        ctbench.training.initialize(model, "shi")
    assert torch.equal(drawn.second.weight, again.second.weight)
    assert not torch.equal(drawn.last.weight, again.last.weight)  # Shi et al. leave the last layer
    assert 0.2 < float(drawn.second.weight.detach().std()) * 27 / (2 * torch.pi) ** 0.5 < 2
    with pytest.raises(ValueError, match="there is no initialisation 'xavier': choose from shi, kaiming"):
        ctbench.training.initialize(drawn, "xavier")
