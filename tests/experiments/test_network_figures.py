"""Figures of trained networks: each is made at a scale of tenths of a second, from records, and never twice."""

import csv
from dataclasses import replace

import pytest

from ctbench.experiments import PAPERS, NetworkFigure, NetworkOf, Networks, figures
from ctbench.experiments.networks import NotInTimeError
from ctbench.experiments.scales import NETWORK_SCALES, SETTINGS, TINY_NETWORKS, Setting
from ctbench.recipes import recipes

ALL = {
    f"{paper} {number}": figure
    for paper in PAPERS
    for number, figure in figures(paper).items()
    if isinstance(figure, NetworkFigure)
}
SHORT = (*TINY_NETWORKS.settings["mnist_01"].changes, "epochs=2", "ramp.end=1", "batch_size=480", "network.width=2")
QUICK = replace(
    TINY_NETWORKS,
    name="quick",
    settings=dict.fromkeys(SETTINGS, Setting(label="digits", prefix="digits", changes=SHORT)),
    splits=(0, 1),
    samples=12,
    certified=12,
    exact=2,
    points=2,
)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Networks:
    """Networks that all figures share, so each is trained once."""
    return Networks(scale=QUICK, folder=tmp_path_factory.mktemp("networks"))


@pytest.mark.parametrize("name", ALL)
def test_a_figure_has_numbers_a_finding_and_a_picture(name, shared, tmp_path):
    figure = ALL[name]
    places, finding = figure.reproduce(shared, tmp_path)
    assert {path.name for path in places} == {path.name for path in tmp_path.iterdir()}
    assert {path.suffix for path in places} == {".csv", ".txt", *([".png"] if figure.drawing else [])}
    assert all(path.stat().st_size for path in places)
    text = (tmp_path / f"{figure.number}.txt").read_text()
    assert text == f"Claim: {figure.claim}.\nquick: {finding}.\n"
    with (tmp_path / f"{figure.number}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    nothing_published = ("ctbench figure-1", "sabr table-1")  # for digits
    assert "no row has these numbers" not in finding.numbers or name in nothing_published


def test_what_is_there_is_neither_trained_nor_measured_again(shared, tmp_path, monkeypatch):
    figure = ALL["ctbench figure-5"]
    figure.reproduce(shared, tmp_path / "first")
    begun = []
    figure.reproduce(replace(shared, tell=begun.append), tmp_path / "second")
    assert begun == []
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


def test_figures_share_networks(shared):
    ours = {path.name for path in shared.folder.iterdir()}
    ALL["ctbench figure-4"].reproduce(shared, shared.folder.parent / "again")
    ALL["ctbench figure-8"].reproduce(shared, shared.folder.parent / "again")
    assert len({path.name for path in shared.folder.iterdir()} - ours) in (0, 9)


def test_after_the_deadline_nothing_is_trained(tmp_path):
    late = Networks(scale=QUICK, folder=tmp_path / "late", deadline=0.0)
    with pytest.raises(NotInTimeError, match="the time was over before: train digits_ibp"):
        late.run(NetworkOf("mnist_01", "ibp"))
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("scale", NETWORK_SCALES.values(), ids=lambda scale: scale.name)
@pytest.mark.parametrize("name", ALL)
def test_every_scale_has_recipes_for_every_figure(name, scale, tmp_path):
    shown = ALL[name].networks(scale)
    there = Networks(scale=scale, folder=tmp_path)
    made = [there.recipe(network) for network in shown]
    assert all(recipe.name in recipes() for recipe in made)
    labels = [str({**there.labels(network)}) for network in shown]
    assert len(set(labels)) == len(labels), "two networks of a figure have the same columns"


def test_one_data_set_stands_for_others_once():
    assert TINY_NETWORKS.distinct(*SETTINGS) == ["mnist_01", "mnist_03"]
    assert NETWORK_SCALES["paper"].distinct(*SETTINGS) == list(SETTINGS)
    assert TINY_NETWORKS.some([1, 2, 3, 4, 5]) == [1, 3, 5]


def test_a_network_of_the_zoo_is_not_trained_again(tmp_path):
    small, begun = NETWORK_SCALES["small"], []
    run = Networks(scale=small, folder=tmp_path, tell=begun.append).run(NetworkOf("mnist_01", "ibp"))
    assert (run.recipe.name, run.folder.path, begun) == ("mnist_small_ibp", tmp_path / "mnist_small_ibp", [])
