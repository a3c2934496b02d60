"""What a run tells of itself."""

import pytest
import torch

from ctbench.domains import interval
from ctbench.graph import freeze, trace
from ctbench.methods.base import Batch, RobustLoss
from ctbench.networks import MLP
from ctbench.regions import Box, Linf
from ctbench.specification import margin_rows
from ctbench.training.monitoring import Means, bound_statistics


def test_means_are_weighted_and_each_over_its_own_times():
    means = Means()
    means.add(3, {"a": torch.tensor(1.0), "b": torch.tensor(True)})
    means.add(1, {"a": torch.tensor(5.0)})
    assert {name: value.item() for name, value in means.values().items()} == {"a": 2.0, "b": 1.0}


@pytest.fixture
def frozen():
    torch.manual_seed(0)
    model = MLP(hidden=(9, 8)).build((1, 2, 2), 3, mean=(0.1,), std=(0.5,))
    x = torch.rand(40, 1, 2, 2)
    net, logits = freeze(trace(model, (1, 2, 2)), x)
    return net, Batch(x, logits.argmax(1), Linf(eps=0.03).region(x), logits)


def found_with(boxes: list[Box] | None, *, whole: bool = True) -> RobustLoss:
    return RobustLoss(torch.zeros(40), torch.ones(40, dtype=torch.bool), boxes, whole)


def test_relus_are_counted(frozen):
    net, batch = frozen
    boxes = interval.boxes(net, batch.region)
    found = bound_statistics(net, batch, found_with(boxes))
    inputs = [node.inputs[0] for node in net.nodes if type(node.op).__name__ == "ReLU"]
    kinds = {"active_relus": 0, "dead_relus": 0, "unstable_relus": 0}
    for index in inputs:
        for low, high in zip(boxes[index].lower.flatten(), boxes[index].upper.flatten(), strict=True):
            kinds["active_relus" if low > 0 else "dead_relus" if high < 0 else "unstable_relus"] += 1
    assert sum(kinds.values()) == 40 * 17
    for name, count in kinds.items():
        assert count > 0
        assert found[name].item() == pytest.approx(count / (40 * 17), abs=1e-6)


def test_the_accuracy_is_that_of_the_interval_bounds(frozen):
    net, batch = frozen
    margins = interval.lower_bounds(net, batch.region, margin_rows(batch.y, 3, dtype=torch.float32))
    found = bound_statistics(net, batch, found_with(interval.boxes(net, batch.region)))["ibp_accuracy"]
    assert found.item() == pytest.approx((margins > 0).all(1).double().mean().item())
    assert 0 < found < 1


def test_boxes_of_a_part_of_the_region_give_no_accuracy(frozen):
    net, batch = frozen
    found = bound_statistics(net, batch, found_with(interval.boxes(net, Linf(eps=0.029).region(batch.x))))
    assert found.keys() == {"active_relus", "dead_relus", "unstable_relus"}
    found = bound_statistics(net, batch, found_with(interval.boxes(net, Linf(eps=0.031).region(batch.x))))
    assert "ibp_accuracy" in found


def test_without_boxes_or_relus_there_is_nothing_to_say_of_them(frozen):
    net, batch = frozen
    assert bound_statistics(net, batch, found_with(None)) == {}
    linear = MLP(hidden=()).build((1, 2, 2), 3, mean=(0.1,), std=(0.5,))
    net, _ = freeze(trace(linear, (1, 2, 2)), batch.x)
    assert bound_statistics(net, batch, found_with(interval.boxes(net, batch.region))).keys() == {"ibp_accuracy"}


def test_boxes_that_a_method_says_are_of_a_part_give_no_accuracy(frozen):
    net, batch = frozen
    found = bound_statistics(net, batch, found_with(interval.boxes(net, batch.region), whole=False))
    assert found.keys() == {"active_relus", "dead_relus", "unstable_relus"}
