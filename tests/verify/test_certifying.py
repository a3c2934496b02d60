"""`certify`: the networks that it takes, and inputs that it refuses."""

import math
import re
import warnings

import pytest
import torch
from tests.small import inputs, small, timeless
from tests.stages import BOUNDS
from torch import nn

import ctbench
from ctbench.regions import Linf
from ctbench.results import CertificationFiles, Open, StageFailedWarning, Verdict
from ctbench.verify import (
    Bound,
    BranchAndBound,
    Records,
    certify,
)

# ------------------------------------------------------------------------------------------------------------ networks


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(value):
    model = small(0)
    with torch.no_grad():
        model[-1].weight[0, 0] = value
    with pytest.raises(ValueError, match="holds NaN or infinite values"):
        certify(model, *inputs(small(0)), eps=0.01)


def test_logits_that_are_no_numbers_leave_samples_open():
    model = small(0).double()
    with torch.no_grad():
        model[-1].weight[0, 0] = 1e308
        model[-3].bias[0] = 1e3  # the neuron behind that weight is active everywhere: their product is infinite
    x, y = inputs(small(0))
    with pytest.warns(StageFailedWarning, match="clean on 60 samples"):
        found = certify(model, x, y, eps=0.01)
    assert {record.verdict for record in found} == {Verdict.UNKNOWN}
    assert {record.open for record in found} == {Open.ERROR}
    assert {record.prediction for record in found} == {-1}
    assert {record.reason for record in found} == {"clean: the logits are NaN or infinite"}
    assert found.natural_accuracy == found.adversarial_accuracy == found.certified_accuracy == 0


def test_a_network_in_train_mode_is_taken_as_at_test_time_and_left_as_it_was():
    model = small(1, batch_norm=True)
    x, y = inputs(model)
    expected = certify(model, x, y, eps=0.05)
    model.train()
    model[2].eval()  # each module has its own mode
    modes = [module.training for module in model.modules()]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    found = certify(model, x, y, eps=0.05)
    assert timeless(found) == timeless(expected)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    model.eval()
    assert [record.prediction for record in found] == model(x).argmax(1).tolist()


def test_a_network_in_double_precision_is_certified_in_it():
    model = small(0)
    x, y = inputs(model)
    found = certify(model.double(), x, y, eps=0.08, stages=BOUNDS)
    expected = certify(model.float(), x, y, eps=0.08, stages=BOUNDS)
    assert [record.verdict for record in found] == [record.verdict for record in expected]
    assert found.certified_accuracy > 0.1


def test_an_unsupported_layer_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.Hardshrink())
    with pytest.raises(ctbench.UnsupportedLayerError, match=r"layer '1' \(Hardshrink\): layer type torch.nn.*not supp"):
        certify(model, torch.rand(2, 4), torch.tensor([0, 1]), eps=0.1)


def test_wong_and_kolters_network_is_certified_on_real_mnist(real_mnist, kw_mnist):
    model = ctbench.networks.ConvSmall().build((1, 28, 28), 10)
    ctbench.load_weights(model, kw_mnist)
    x, y = ctbench.datasets.MNIST().load(real_mnist).test[:]
    with torch.no_grad():
        assert (model(x).argmax(1) != y).sum() == 180
    found = certify(model, x[:2], y[:2], eps=0.1, stages=[Bound(domain="crown")])
    assert found.certified_accuracy == 1


# ----------------------------------------------------------------------------------------------------------- bad input


def test_bad_input_is_explained():
    model, x, y = small(0), torch.rand(3, 4), torch.tensor([0, 1, 2])
    cases = [
        ({"y": torch.tensor([0, 1, 3])}, r"label 3 of sample 2 is out of range: the network has 3 classes"),
        ({"y": torch.tensor([0, -1, 2])}, r"label -1 of sample 1 is out of range"),
        ({"y": y.float()}, r"labels must be integers, these are torch.float32"),
        ({"y": y > 0}, r"labels must be integers, these are torch.bool"),
        ({"y": y[:2]}, r"there are 3 inputs of shape .* and 2 labels"),
        ({"x": x[:0], "y": y[:0]}, r"there are 0 inputs of shape .* and 0 labels: .* at least one"),
        ({"x": torch.rand(3, 5)}, r"takes 4 features, its input has shape \(5,\)"),
        ({"x": x + 1}, r"the inputs lie in \[1.*\] but the data range is \[0, 1\]: give raw pixels"),
        ({"x": x - 1}, r"the inputs lie in \[-"),
        ({"x": x * math.nan}, r"the inputs hold NaN or infinite values"),
        ({"x": x * math.inf, "eps": None, "threat": Linf(0.1, clip=None)}, r"the inputs hold NaN or infinite values"),
        ({"eps": 1.5}, r"eps is 1.5, wider than the data range"),
        ({"eps": -0.1}, r"eps is -0.1: a radius must be a number >= 0"),
        ({"eps": math.nan}, r"eps is nan: a radius must be a number >= 0"),
        ({"eps": math.inf}, r"eps is inf: a radius must be a number >= 0"),
        ({"stages": []}, r"stages must be a list of Stage objects.*; got an empty list"),
        ({"stages": [BranchAndBound]}, r"stages must be a list of Stage objects.*; got .*BranchAndBound'>"),
    ]
    for changes, message in cases:
        with pytest.raises(ValueError, match=message):
            certify(**({"model": model, "x": x, "y": y, "eps": 0.1} | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x": torch.tensor(0.5)}, "x is a tensor of shape []"),
        ({"y": torch.tensor(1)}, "y a tensor of shape []"),
        ({"x": [[0.0] * 4]}, "the inputs are a list"),
        ({"eps": True}, "eps is True: a radius must be a number"),
        (
            {"eps": torch.tensor([0.1, 0.2])},
            "eps has the shape [2] but one input has [4]: eps must broadcast to one input",
        ),
        ({"records": "records.jsonl"}, "records is 'records.jsonl': give ctbench.Records(path), or None"),
    ],
)
def test_wrong_types_are_explained(changes, said):
    model = small(0)
    x, y = inputs(model, 3)
    arguments = {"x": x, "y": y, "eps": 0.1} | changes
    with pytest.raises(ValueError, match=re.escape(said)):
        certify(model, **arguments)


@pytest.mark.parametrize("shape", [(3, 1), (3, 2)])
def test_labels_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="label"):
        certify(small(0), torch.rand(3, 4), torch.zeros(shape, dtype=torch.int64), eps=0.1)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_labels_of_any_integer_type_mean_the_same(dtype):
    model = small(0)
    x, y = inputs(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = certify(model, x, y.to(dtype), eps=0.08)
    assert timeless(found) == timeless(certify(model, x, y, eps=0.08))


def test_bad_input_is_found_before_a_file_is_made(tmp_path):
    files = CertificationFiles(tmp_path / "certified" / "linf.jsonl")
    with pytest.raises(ValueError, match="eps is 2"):
        certify(small(0), torch.rand(3, 4), torch.tensor([0, 1, 2]), eps=2.0, records=Records(files.records))
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_one_class_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(ValueError, match="the network has 1 output: a margin needs two classes or more"):
        certify(model, torch.rand(2, 1, 2, 2), torch.zeros(2, dtype=torch.long), eps=0.1)
