"""What every analysis must do: give finite numbers for networks of several kinds, and records that are read again."""

import dataclasses
import json
import math
from itertools import chain

import pytest
import torch
from tests import simulated_device
from tests.analyses.networks import inputs, labels, network
from tests.kinds import ours

from ctbench.analyses import Analysis, NetworkOnInputs, analyses
from ctbench.methods.ibp import IBP
from ctbench.regions import Linf
from ctbench.results import Measurement, PartRecord
from ctbench.training import codec

KINDS = ours(analyses())


def example(name: str) -> Analysis:
    """The analysis with its defaults, and a training method if it needs one."""
    kind = KINDS[name]
    return kind(method=IBP()) if "method" in {field.name for field in dataclasses.fields(kind)} else kind()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("of", ["mlp", "cnn", "residual"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_numbers_are_finite_and_records_are_read_again(name, of, dtype):
    pair = NetworkOnInputs.of(network(of).to(dtype), inputs(3).to(dtype), labels(3))
    asked, threat = example(name), Linf(0.02)
    records = list(asked.records(pair, [threat]))
    assert [record.key for record in records] == asked.keys(pair, threat)
    for record in records:
        assert PartRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
        assert record.points
        for point in record.points:
            assert point.values
            for values in point.values.values():
                numbers = [values] if isinstance(values, float) else [value for value in values if value is not None]
                assert all(math.isfinite(number) for number in numbers)
                assert isinstance(values, float) or len(values) == 3
    again = [dataclasses.replace(record, seconds=0.0) for record in asked.records(pair, [threat])]
    assert again == [dataclasses.replace(record, seconds=0.0) for record in records]


@pytest.mark.parametrize("name", KINDS)
def test_numbers_on_another_device_are_the_same(name):
    def points(device: str) -> list[tuple[Measurement, ...]]:
        model, x, y = network("cnn").double().to(device), inputs(3).double().to(device), labels(3).to(device)
        return [record.points for record in example(name).records(NetworkOnInputs.of(model, x, y), [Linf(0.02)])]

    here, away = points("cpu"), points(simulated_device.NAME)
    assert [len(each) for each in away] == [len(each) for each in here]
    for mine, other in zip(chain(*away), chain(*here), strict=True):
        assert mine.values.keys() == other.values.keys()
        for quantity, values in mine.values.items():
            assert values == pytest.approx(other.values[quantity], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_options_can_be_set_as_those_of_a_recipe_and_are_kept(name):
    asked = example(name)
    assert codec.decode(Analysis, codec.encode(asked)) == asked
    assert asked.layout is None or asked.layout.quantities


@pytest.mark.parametrize("name", KINDS)
def test_the_network_is_not_changed(name):
    model = network("cnn").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    example(name)(model, inputs(3), labels(3), eps=0.02)
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
