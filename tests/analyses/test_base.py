"""The base of analyses: parts, digests, resuming, and analyses of your own."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from tests.analyses.networks import inputs, labels, network
from tests.kinds import ours

from ctbench.analyses import Analysis, NetworkOnInputs, Utilisation, analyses, analysis, measurement
from ctbench.regions import Linf
from ctbench.results import Measurements


@dataclass(frozen=True, kw_only=True)
class MeanOfTheTest(Analysis):
    """The mean pixel, twice: of each input, and of a part."""

    name: ClassVar[str] = "mean-of-the-test"
    size: ClassVar[int | None] = 4
    factor: float = 1.0

    def measure(self, part):
        means = self.factor * part.x.flatten(1).mean(1)
        means[part.y == 3] = torch.nan
        return [measurement({"each": means, "part": float(part.x.mean())}), measurement({"at": means}, x=2.0)]


def test_all_of_ours_are_found():
    names = (
        "box-growth centres fragmentation gradient-alignment loss-errors loss-growth own-accuracy product-gradients "
    )
    names += "states tightness utilisation"
    assert list(ours(analyses())) == names.split()
    assert analysis("fragmentation") == analyses()["fragmentation"]()
    with pytest.raises(ValueError, match="no analysis is called 'nothing'; there are box-growth, centres,"):
        analysis("nothing")


def test_numbers_of_samples_and_of_parts():
    x = inputs(10)
    found = MeanOfTheTest()(network("mlp"), x, labels(10), eps=0.1)
    assert [(r.start, r.stop) for r in found.records] == [(0, 4), (4, 8), (8, 10)]
    means = x.flatten(1).mean(1).tolist()
    assert found.values("each") == pytest.approx([mean for k, mean in enumerate(means) if k % 4 != 3])
    assert found.values("part") == pytest.approx([float(x[:4].mean()), float(x[4:8].mean()), float(x[8:].mean())])
    assert found.mean("part") == pytest.approx(float(x.mean())), "parts count by their size"
    assert found.summary("each").count == 8
    assert found.summary("part").count == 10
    assert found.places() == [None, 2.0]
    assert found.values("at", x=2.0) == found.values("each")


def test_samples_of_a_larger_data_set_have_their_own_places():
    x, threat = inputs(10), Linf(eps=0.1)
    pair = NetworkOnInputs.of(network("mlp"), x[3:], labels(10)[3:], first=3)
    assert MeanOfTheTest().keys(pair, threat) == [(0.1, 3, 4), (0.1, 4, 8), (0.1, 8, 10)]
    whole = NetworkOnInputs.of(network("mlp"), x, labels(10))
    first, second = (list(MeanOfTheTest().records(s, [threat])) for s in (pair, whole))
    assert first[1].points == second[1].points
    assert first[1].digest == second[1].digest


def test_parts_that_are_done_are_not_measured_again():
    pair, threat = NetworkOnInputs.of(network("mlp"), inputs(10), labels(10)), Linf(eps=0.1)
    records = list(MeanOfTheTest().records(pair, [threat]))
    done = {record.key: record for record in records[:2]}
    (last,) = MeanOfTheTest().records(pair, [threat], done)
    assert last.key == records[2].key
    other = NetworkOnInputs.of(network("mlp"), inputs(10), (labels(10) + 1) % 4)
    with pytest.raises(ValueError, match="the record of samples 0 to 3 is about other inputs or labels"):
        next(MeanOfTheTest().records(other, [threat], done))


def test_labels_are_optional_and_are_then_the_networks_answers():
    model, x = network("mlp"), inputs()
    pair = NetworkOnInputs.of(model, x)
    assert torch.equal(pair.part(0, 6, Linf(eps=0.1)).y, model(x).argmax(1))


def test_of_parts_that_overlap_the_larger_count():
    pair, threat = NetworkOnInputs.of(network("mlp"), inputs(10), labels(10)), Linf(eps=0.1)
    few = NetworkOnInputs.of(network("mlp"), inputs(10)[:2], labels(10)[:2])
    both = Measurements((*Utilisation().records(few, [threat]), *Utilisation().records(pair, [threat])))
    assert both.samples() == 10
    assert both.values("utilisation") == Utilisation()(network("mlp"), inputs(10), eps=0.1).values("utilisation")


def test_several_radii_have_to_be_named():
    pair = NetworkOnInputs.of(network("mlp"), inputs(10), labels(10))
    found = Measurements(tuple(r for eps in (0.1, 0.2) for r in MeanOfTheTest().records(pair, [Linf(eps=eps)])))
    assert found.radii == [0.1, 0.2]
    with pytest.raises(ValueError, match=r"there are several radii, 0\.1, 0\.2: name one as eps"):
        found.mean("each")
    assert found.mean("each", 0.2) == found.mean("each", 0.1)
    with pytest.raises(ValueError, match="there is no quantity 'nothing': there are each, part"):
        found.mean("nothing", 0.1)
    with pytest.raises(ValueError, match=r"there is no quantity 'each' at 2: there are at"):
        found.mean("each", 0.1, x=2.0)


@dataclass(frozen=True, kw_only=True)
class OfOthers(Analysis):
    """Measures something else than the samples."""

    name: ClassVar[str] = "of-others"
    what: str = "one"

    def measure(self, part):
        return {"one": [measurement({"q": part.x[:1].flatten(1).mean(1)})], "none": [{"q": 1.0}]}[self.what]


def test_a_measurement_that_does_not_fit_the_samples_is_never_a_record():
    with pytest.raises(ValueError, match="'of-others' measured 1 numbers 'q' of 6 samples: `measure` must give one"):
        OfOthers()(network("mlp"), inputs(6), eps=0.1)
    with pytest.raises(ValueError, match=r"'of-others' measured a dict: `measure` must return a list of `measurement"):
        OfOthers(what="none")(network("mlp"), inputs(6), eps=0.1)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="x is a ndarray and y a ndarray: give tensors"):
        Utilisation()(network("mlp"), inputs().numpy(), eps=0.1)
    with pytest.raises(ValueError, match="seed is -1"):
        NetworkOnInputs.of(network("mlp"), inputs(), seed=-1)
    with pytest.raises(ValueError, match="label 9 of sample 0 is out of range"):
        NetworkOnInputs.of(network("mlp"), inputs(1), torch.tensor([9]))
    with pytest.raises(ValueError, match="the inputs lie in"):
        Utilisation()(network("mlp"), 2 * inputs(), eps=0.1)
    with pytest.raises(ValueError, match="given is neither a threat model nor eps"):
        Utilisation()(network("mlp"), inputs())
