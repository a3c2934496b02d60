"""Mixed precision and compilation: what they reach, what they leave alone, and what happens where they fail."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F

from ctbench.attacks import PGD
from ctbench.graph import freeze, trace
from ctbench.graph.ops import Scale
from ctbench.methods.base import Batch, Method, RobustLoss
from ctbench.methods.edac import EDAC
from ctbench.methods.ibp import IBP
from ctbench.networks import CNN3
from ctbench.results import jsonl
from ctbench.training import Run, checkpoints, train
from ctbench.training import execution as executions

LOW, FULL = torch.bfloat16, torch.float32


@dataclass(frozen=True, kw_only=True)
class Seen(Method):
    """The clean cross-entropy, which notes the types of numbers that it meets, and may fail in bfloat16."""

    name: ClassVar[str] = "seen"
    calls: ClassVar[list[tuple[torch.dtype, ...]]] = []  # of the network's answers, clean logits, a batch norm
    fails: bool = False

    def __call__(self, net, batch: Batch) -> RobustLoss:
        made = net(batch.x).dtype
        norm = next(
            op for node in net.nodes for op in (node.op, getattr(node.op, "scale", None)) if isinstance(op, Scale)
        )
        self.calls.append((made, batch.logits.dtype, norm.weight.dtype))
        if self.fails and made == LOW:
            raise RuntimeError("not in these numbers\nat some line")
        loss = F.cross_entropy(batch.logits, batch.y, reduction="none")
        return RobustLoss(loss, correct=batch.logits.argmax(1) == batch.y)


@pytest.fixture(autouse=True)
def _nothing_seen():
    Seen.calls.clear()


def same(first: Run, second: Run) -> bool:
    """Whether two runs are the same, bit by bit."""
    weights, others = first.model.state_dict(), second.model.state_dict()
    return all(torch.equal(value, others[name]) for name, value in weights.items())


def ways(run: Run) -> tuple[str, bool]:
    versions = json.loads(run.folder.versions.read_text())
    return versions["precision"], versions["compiled"]


# ------------------------------------------------------------------------------------------------ bfloat16


def test_networks_are_evaluated_in_bfloat16_and_all_that_is_kept_is_float32(tiny, tmp_path):
    recipe = tiny(method=Seen(), shi=0.0, epochs=1, precision="bfloat16", validation=0.2)
    run = train(recipe, out=tmp_path, quiet=True)
    assert Seen.calls == (2 + 5) * [(LOW, FULL, FULL)] + 2 * [(FULL, FULL, FULL)]  # rehearsal and steps; validation
    assert {v.dtype for v in run.model.state_dict().values() if v.is_floating_point()} == {FULL}
    kept = checkpoints.load_state(run.folder.state)
    assert {value.dtype for value in kept.optimizer.values()} == {FULL}
    assert ways(run) == ("bfloat16", False)


@pytest.mark.parametrize("method", [IBP(), EDAC(attack=PGD(steps=1))], ids=lambda method: method.name)
def test_a_run_in_bfloat16_is_near_the_one_in_float32(tiny, tmp_path, method):
    changes = {"method": method, "shi": 0.5 if method.name == "ibp" else 0.0, "epochs": 1}
    low, full = (
        train(tiny(**changes, precision=precision), out=tmp_path / precision, quiet=True)
        for precision in ("bfloat16", "float32")
    )
    (low_loss, full_loss) = (jsonl.read(run.folder.metrics)[-1]["loss"] for run in (low, full))
    assert low_loss == pytest.approx(full_loss, rel=0.05)
    assert low_loss != pytest.approx(full_loss, rel=1e-6)


def test_the_statistics_of_values_in_bfloat16_are_computed_in_float32(tiny):
    torch.manual_seed(0)
    model, x = CNN3(width=2).build((1, 8, 8), 10), torch.rand(32, 1, 8, 8)
    with torch.no_grad():
        model[0].bias += 100  # where a mean in bfloat16 is off by up to 0.25
    model[1].momentum = 1.0
    with torch.autocast("cpu", LOW):
        freeze(trace(model, (1, 8, 8)), x, training=True)
    values = model[0].to(LOW)(x.to(LOW)).float()
    torch.testing.assert_close(model[1].running_mean, values.mean((0, 2, 3)), rtol=0, atol=1e-4)


def test_where_bfloat16_fails_training_is_in_float32_and_says_so(tiny, tmp_path):
    changes: dict[str, Any] = {"method": Seen(fails=True), "shi": 0.0, "epochs": 1, "precise_bn": False}
    full = train(tiny(**changes), out=tmp_path / "full", quiet=True)
    with pytest.warns(UserWarning, match=r"^bfloat16 does not work here, so training uses float32 \(not in these numb"):
        low = train(tiny(**changes, precision="bfloat16"), out=tmp_path / "low", quiet=True)
    assert same(low, full)
    assert (ways(low), ways(full)) == (("float32", False), ("float32", False))


def test_an_error_of_the_recipe_is_no_failure_of_bfloat16(tiny, tmp_path):
    with pytest.raises(ValueError, match="computes no interval bounds: set shi=0"):
        train(tiny(method=Seen(), precision="bfloat16"), out=tmp_path, quiet=True)


# ------------------------------------------------------------------------------------------------ compilation


def compiling(monkeypatch: pytest.MonkeyPatch, compiled: Callable[..., RobustLoss]) -> None:
    """Let a function stand for the compiled call of a method."""
    monkeypatch.setattr(torch, "compile", lambda function: compiled)
    monkeypatch.setattr(executions, "_compiled", executions._compiled.__wrapped__)


def test_the_method_that_runs_is_the_compiled_one(tiny, tmp_path, monkeypatch):
    made = []

    def compiled(method, net, batch):
        made.append(method)
        return method(net, batch)

    compiling(monkeypatch, compiled)
    plain = train(tiny(epochs=1), out=tmp_path / "plain", quiet=True)
    assert not made
    run = train(tiny(epochs=1), out=tmp_path / "compiled", quiet=True, compiled=True)
    assert made == (2 + 6) * [IBP()]  # the rehearsal and an epoch
    assert same(run, plain)
    assert ways(run) == ("float32", True)


def test_where_compilation_fails_the_method_runs_as_it_is_and_that_is_said(tiny, tmp_path, monkeypatch):
    def compiled(method, net, batch):
        torch.rand(3, generator=batch.generator)
        raise RuntimeError("no compiler")

    compiling(monkeypatch, compiled)
    plain = train(tiny(epochs=1), out=tmp_path / "plain", quiet=True)
    with pytest.warns(
        UserWarning, match=r"^the method cannot be compiled here and runs without compilation \(no compiler\)$"
    ) as told:
        run = train(tiny(epochs=1), out=tmp_path / "compiled", quiet=True, compiled=True)
    assert len(told) == 1
    assert same(run, plain)
    assert ways(run) == ("float32", False)


def test_both_may_fail(tiny, tmp_path, monkeypatch):
    def compiled(method, net, batch):
        raise RuntimeError

    compiling(monkeypatch, compiled)
    recipe = tiny(method=Seen(fails=True), shi=0.0, epochs=1, precision="bfloat16")
    with pytest.warns(UserWarning, match="here") as told:
        run = train(recipe, out=tmp_path, quiet=True, compiled=True)
    assert [str(warning.message).partition(" here")[0] for warning in told] == [
        "the method cannot be compiled",
        "bfloat16 does not work",
    ]
    assert ways(run) == ("float32", False)
