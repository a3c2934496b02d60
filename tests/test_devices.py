"""A device that cannot be had is one clear line, from Python and from commands."""

import pytest
import torch
from tests import simulated_device
from torch import nn

import ctbench
from ctbench import devices
from ctbench.attacks import adversarial_accuracy
from ctbench.cli.main import main

ABSENT = ["nonsense", "mps", "xpu", "vulkan", "hpu", "meta"] + ([] if torch.cuda.is_available() else ["cuda", "cuda:3"])


@pytest.mark.parametrize("name", [*ABSENT, torch.device("meta"), None])
def test_a_device_that_cannot_be_had_is_one_short_line(name):
    with pytest.raises(ValueError, match=r"to compute .*torch has.* here") as raised:
        devices.available(name)
    assert str(name) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize("name", ["cpu", torch.device("cpu")])
def test_an_available_device_is_returned(name):
    assert devices.available(name) == torch.device("cpu")


@pytest.mark.parametrize("name", ABSENT)
def test_training_and_loading_say_it_before_anything_is_read_or_written(name, tmp_path):
    with pytest.raises(ValueError, match=f"device '{name}'"):
        ctbench.train(ctbench.recipe("digits_ibp"), out=tmp_path / "run", device=name)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=f"device '{name}'"):
        ctbench.load_run("zoo:mnist_small_ibp", device=name)
    with pytest.raises(ValueError, match=f"device '{name}'"):
        ctbench.load_network("zoo:mnist_small_ibp", device=name)


def test_a_network_is_loaded_onto_a_device():
    model = ctbench.load_network("zoo:mnist_small_ibp", device=simulated_device.NAME)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {simulated_device.NAME}


@pytest.mark.parametrize("part", ["inputs", "labels", "model"])
@pytest.mark.parametrize("call", [ctbench.certify, adversarial_accuracy, ctbench.margin_bounds])
def test_tensors_without_values_are_one_clear_error(part, call):
    model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 3)), torch.rand(2, 1, 2, 2), torch.arange(2)
    if part == "inputs":
        x = x.to("meta")
    elif part == "labels":
        y = y.to("meta")
    else:
        model[2].to("meta")
    with pytest.raises(ValueError, match=f"the {part} .* on the device 'meta', w"):
        call(model, x, y, eps=0.1)


@pytest.mark.parametrize(
    "command", ["train", "certify", "attack", "analyse", "corruptions", "reproduce", "sweep", "tune"]
)
@pytest.mark.parametrize("name", ABSENT)
def test_every_command_says_it(command, name, capsys):
    subjects = {"sweep": ["digits_ibp", "--out", "runs"], "reproduce": ["sabr", "table-2"]}
    subjects["tune"] = ["digits_ibp", "--space", "l1=0,1", "--trials", "1", "--out", "runs"]
    try:
        status: object = main([command, *subjects.get(command, ["zoo:mnist_small_ibp"]), "--device", name])
    except SystemExit as refusal:  # of the argument
        status = refusal.code
    assert status == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert f"device '{name}'" in line
    assert "torch has" in line
