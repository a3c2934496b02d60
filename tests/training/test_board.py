"""Metrics for TensorBoard: those of the run's records, each epoch once."""

import json
import runpy
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ctbench.results import jsonl
from ctbench.training import checkpoints, train


class Killed(BaseException):
    """Stands for what no code can catch."""


def scalars(folder) -> dict[str, dict[int, float]]:
    """The values that TensorBoard shows, by name and step."""
    shown = EventAccumulator(str(folder)).Reload()
    return {name: {event.step: event.value for event in shown.Scalars(name)} for name in shown.Tags()["scalars"]}


def test_every_metric_is_shown_at_its_epoch(tiny, tmp_path):
    run = train(tiny(validation=0.2), out=tmp_path, quiet=True, tensorboard=True)
    records = jsonl.read(run.folder.metrics)
    shown = scalars(tmp_path / "tensorboard")
    assert shown.keys() == records[0].keys() - {"epoch"}
    for name, values in shown.items():
        assert values == pytest.approx({record["epoch"]: record[name] for record in records})


def test_an_epoch_that_is_trained_again_is_shown_once(tiny, tmp_path, monkeypatch):
    save, made = checkpoints.save_state, []

    def dying(*args, **kwargs):
        made.append(None)
        if len(made) == 3:
            raise Killed
        save(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_state", dying)
        with pytest.raises(Killed):
            train(tiny(), out=tmp_path, quiet=True, tensorboard=True)
    train(tiny(), out=tmp_path, resume=True, quiet=True, tensorboard=True)
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in shown.Scalars("loss")] == [1, 2, 3]


def test_without_tensorboard_it_is_asked_for(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard, or train without it"):
        train(tiny(epochs=1), out=tmp_path, quiet=True, tensorboard=True)
    train(tiny(epochs=1), out=tmp_path, quiet=True)


def test_the_command_writes_for_tensorboard(tiny, tmp_path, monkeypatch):
    (tmp_path / "mine.json").write_text(json.dumps(tiny(epochs=1).to_json()))
    call = ["ctbench", "train", str(tmp_path / "mine.json"), "--out", str(tmp_path / "run"), "--tensorboard", "--quiet"]
    monkeypatch.setattr(sys, "argv", call)
    with pytest.raises(SystemExit) as end:
        runpy.run_module("ctbench", run_name="__main__")
    assert end.value.code == 0
    assert scalars(tmp_path / "run" / "tensorboard")["eps"].keys() == {1}
