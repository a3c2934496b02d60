"""Rows of figures: how quantities are joined, spread over seeds, and compared with published results."""

from dataclasses import dataclass

import pytest

from ctbench.experiments import NetworkOf, Networks
from ctbench.experiments.quantities import Each, Estimated, Published, Quantity, Spread, Table
from ctbench.experiments.scales import NETWORK_SCALES

IBP = NetworkOf("mnist_01", "ibp", about={"seed": 1})


@dataclass(frozen=True)
class Fixed(Quantity):
    """Rows that are given."""

    given: tuple[tuple[tuple[str, float], ...], ...]

    def rows(self, networks, network):
        return [dict(row) for row in self.given]


@dataclass(frozen=True)
class Seeds(Table):
    """A row for each network, with its seed as its natural accuracy."""

    def __call__(self, networks, figure):
        return [{**networks.labels(network), "natural": float(network.about["seed"])} for network in figure]


@pytest.fixture
def small(tmp_path) -> Networks:
    return Networks(scale=NETWORK_SCALES["small"], folder=tmp_path)


def test_quantities_stand_side_by_side_where_their_shared_columns_agree(small):
    first = Fixed(((("x", 1.0), ("a", 2.0)), (("x", 2.0), ("a", 3.0))))
    second = Fixed(((("x", 2.0), ("b", 5.0)), (("x", 3.0), ("b", 6.0))))
    about = {"setting": "MNIST, eps 0.1", "radius": "small", "method": "IBP", "seed": 1}
    assert Each(first, second)(small, [IBP]) == [{**about, "x": 2.0, "a": 3.0, "b": 5.0}]
    assert len(Each(first, Fixed(((("c", 1.0),), (("c", 2.0),))))(small, [IBP])) == 4


def test_published_results_are_those_of_the_setting_and_the_papers(small):
    rows = Published(Seeds(), ("Müller et al. 2023",))(small, [IBP])
    assert rows[0] == {**small.labels(IBP), "natural": 1.0, "by": "here"}
    assert {row["source"] for row in rows[1:]} == {"Müller et al. 2023, Table 1", "Müller et al. 2023, Table 2"}
    assert {row["setting"] for row in rows} == {"MNIST, eps 0.1"}
    (net,) = (row for row in rows if row["method"] == "l-infinity-distance net")
    assert (net["natural"], net["certified"], net["radius"]) == (98.93, 97.95, "small")
    every = Published(Seeds())(small, [IBP])
    assert len(every) > len(rows)
    ibp = next(row for row in every if row["method"] == "IBP" and row.get("source") == "CTBench, Table 1")
    errors = (ibp["standard error"], ibp["robust error"], ibp["certified error"])
    assert errors == pytest.approx((100 - 98.87, 100 - 98.27, 100 - 98.26))


def test_the_spread_over_seeds(small):
    networks = [NetworkOf("mnist_01", "ibp", about={"seed": seed}) for seed in (1, 2, 6)]
    (row,) = Spread(Seeds(), ("natural",))(small, networks)
    assert (row["networks"], row["natural"]) == (3, 3.0)
    assert row["natural, deviation"] == pytest.approx(7**0.5)


def test_how_well_a_quantity_estimates_another_over_all_networks_of_a_data_set(small):
    @dataclass(frozen=True)
    class Own(Table):
        def __call__(self, networks, figure):
            return [{**row, "own": 2 * row["natural"] + 1, "constant": 3.0} for row in Seeds()(networks, figure)]

    networks = [
        NetworkOf(setting, "ibp", about={"seed": seed})
        for setting, seed in (("mnist_01", 1), ("mnist_01", 2), ("mnist_03", 6))
    ]
    *rows, summary = Estimated(Own(), "own", ("natural", "constant"))(small, networks)
    assert rows == [{**row, "data": "mnist"} for row in Own()(small, networks)]
    assert summary["data"] == "mnist"
    assert summary["setting"] == "mnist, all networks"
    assert summary["networks"] == 3
    assert summary["correlation with natural"] == pytest.approx(1.0)
    assert summary["own - natural"] == pytest.approx(4.0)
    assert summary["own - natural, deviation"] == pytest.approx(7**0.5)
    assert summary["correlation with constant"] is None
    single = Estimated(Own(), "own", ("natural",))(small, networks[:1])[-1]
    assert (single["own - natural"], single["own - natural, deviation"]) == (2.0, None)


def test_networks_without_a_quantity_do_not_take_part_in_the_summary(small):
    @dataclass(frozen=True)
    class Some(Table):
        def __call__(self, networks, figure):
            natural, own = (1.0, 2.0, 4.0, 9.0), (None, 1.0, 3.0, 5.0)
            return [{"natural": a, "own": b, "none": None} for a, b in zip(natural, own, strict=True)]

    summary = Estimated(Some(), "own", ("natural", "none"))(small, [IBP])[-1]
    assert summary["own - natural"] == pytest.approx(-2.0)
    assert "own - none" not in summary
