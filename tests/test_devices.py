"""A device that cannot be had is one clear line, from Python and from commands."""

import pytest
import torch

import ctbench
from ctbench import devices
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


@pytest.mark.parametrize("command", ["train", "certify", "attack", "analyse", "corruptions", "reproduce", "sweep"])
@pytest.mark.parametrize("name", ABSENT)
def test_every_command_says_it(command, name, capsys):
    subject = ["digits_ibp", "--out", "runs"] if command == "sweep" else ["zoo:mnist_small_ibp"]
    with pytest.raises(SystemExit, match="2"):
        main([command, *subject, "--device", name])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert f"device '{name}'" in line
    assert "torch has" in line
