"""Figures of trained networks: each is made at a scale of tenths of a second, from records, and never twice."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from ctbench.analyses.box_growth import SHARES, box_growth
from ctbench.analyses.neurons import neuron_states
from ctbench.attacks import Evaluation
from ctbench.datasets.published_corruptions import published_kind
from ctbench.domains import coap
from ctbench.experiments import PAPERS, NetworkFigure, NetworkOf, Networks, figures
from ctbench.experiments.budgets import MORE, SEGMENTS, STAND_IN, keys, tiny_budgets
from ctbench.experiments.following import Following
from ctbench.experiments.networks import NotInTimeError, _shown_corruptions
from ctbench.experiments.quantities import Each, LayerGrowth, RobustErrors, UnstableNeurons
from ctbench.experiments.scales import NETWORK_SCALES, SETTINGS, TINY_NETWORKS
from ctbench.experiments.setting import Setting
from ctbench.graph import freeze, trace
from ctbench.recipes import recipes
from ctbench.recipes.robust_accuracy import BUDGETS
from ctbench.results import jsonl
from ctbench.results.fairness import discrepancy

ALL = {
    f"{paper} {number}": figure
    for paper in PAPERS
    for number, figure in figures(paper).items()
    if isinstance(figure, NetworkFigure)
}
SHORT = (*TINY_NETWORKS.settings["mnist_01"].changes, "epochs=2", "ramp.end=1", "batch_size=480", "network.width=2")
BRIEF = ("epochs=2", "optimizer.milestones=[1]")


def brief(key: str, setting: Setting) -> Setting:
    samples = 48 if key in SEGMENTS else 480
    return replace(setting, changes=(*setting.changes, *BRIEF, f"train_samples={samples}", f"batch_size={samples}"))


BUDGET_SETTINGS = {key: brief(key, setting) for key, setting in tiny_budgets().items()}
QUICK = replace(
    TINY_NETWORKS,
    name="quick",
    settings={**dict.fromkeys(SETTINGS, Setting(label="digits", prefix="digits", changes=SHORT)), **BUDGET_SETTINGS},
    splits=(0, 1),
    samples=12,
    certified=12,
    few=5,
    exact=2,
    points=2,
    seeds=2,
    watched=4,
)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Networks:
    """Networks that all figures share, so each is trained once."""
    return Networks(scale=QUICK, folder=tmp_path_factory.mktemp("networks"))


WITHOUT_ALL_NUMBERS = (  # nothing is published for digits, or the quick scale has no large radius
    "ctbench figure-1",
    "sabr table-1",
    "ctbench figure-4",
    "ctbench figure-8",
)


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
    assert "no row has these numbers" not in finding.numbers or name in WITHOUT_ALL_NUMBERS


def test_what_is_there_is_neither_trained_nor_measured_again(shared, tmp_path, monkeypatch):
    figure = ALL["ctbench figure-5"]
    figure.reproduce(shared, tmp_path / "first")
    begun = []
    figure.reproduce(replace(shared, tell=begun.append), tmp_path / "second")
    assert begun == []
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


def test_figures_share_networks(shared):
    out = shared.folder.parent / "again"
    ALL["ctbench figure-4"].reproduce(shared, out)
    before = {path.name for path in shared.folder.iterdir()}
    assert len(before) >= len(ALL["ctbench figure-4"].networks(QUICK))
    ALL["ctbench figure-8"].reproduce(shared, out)
    assert {path.name for path in shared.folder.iterdir()} == before


def test_after_the_deadline_nothing_is_trained(tmp_path):
    late = Networks(scale=QUICK, folder=tmp_path / "late", deadline=0.0)
    with pytest.raises(NotInTimeError, match="the time was over before: train digits_ibp"):
        late.run(NetworkOf("mnist_01", "ibp"))
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize("order", [(True, False), (False, True)], ids=["few-first", "all-first"])
def test_few_images_are_the_first_of_the_same_records(tmp_path, order):
    networks = Networks(scale=QUICK, folder=tmp_path)
    ibp = NetworkOf("mnist_01", "ibp")
    done = {few: networks.certification(ibp, few=few) for few in order}
    assert (len(done[True]), len(done[False])) == (5, 12)
    assert list(done[True]) == list(done[False])[:5]


def test_snow_is_left_out_where_it_is_a_corruption():
    assert set(published_kind("cifar10-c").kinds) - set(_shown_corruptions("cifar10-c")) == {"snow"}
    assert _shown_corruptions("mnist-c") == _shown_corruptions("ours") == ()


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


def test_the_growth_of_boxes_is_shown_layer_by_layer(shared):
    sabr = NetworkOf("cifar10_2", "sabr_original")
    run = shared.run(sabr)
    rows = Each(LayerGrowth())(shared, [sabr])
    expected = box_growth(run.model, shared.images(run, 12)[0], threat=run.recipe.threat)
    assert {(row["layer"], row["lambda"]): row["growth"] for row in rows} == {
        (name.removeprefix("layer "), share): expected.mean(name, x=share)
        for share in SHARES
        for name in expected.quantities(x=share)
        if name.startswith("layer ")
    }
    assert {row["op"] for row in rows} > {"relu"}


# -------------------------------------------------------------------------------------- budgets and segments

COAP = NetworkOf("mnist-l2-0.75", "coap", about={"method": "COAP"})


def rows_of(figure: NetworkFigure, networks: Networks, folder: Path) -> list[dict[str, str]]:
    figure.reproduce(networks, folder)
    with (folder / f"{figure.number}.csv").open() as file:
        return list(csv.DictReader(file))


def test_errors_and_discrepancies_are_those_of_the_records_of_attacks(shared, tmp_path):
    rows = rows_of(ALL["generalisation 3"], shared, tmp_path)
    methods = {row["method"] for row in rows}
    assert methods == {"AT", "COAP", "CROWN-IBP"}
    assert {(row["norm"], row["samples"], row["data"]) for row in rows} == {("l2", "12", "digits")}
    (row,) = Each(RobustErrors())(shared, [COAP])
    run = shared.run(COAP)
    (path,) = (run.folder.path / "attacked").glob("l2-0.375-first-12-pgd.jsonl")
    records = jsonl.read(path)
    wrong = [record["prediction"] != record["label"] for record in records]
    broken = [missed or record["attack"] is not None for missed, record in zip(wrong, records, strict=True)]
    assert row["standard error"] == pytest.approx(100 * sum(wrong) / 12)
    assert row["robust error"] == pytest.approx(100 * sum(broken) / 12)
    labels = [record["label"] for record in records]
    assert row["discrepancy"] == pytest.approx(100 * discrepancy(wrong, labels))
    assert row["robust discrepancy"] == pytest.approx(100 * discrepancy(broken, labels))
    assert jsonl.read_json(path.with_suffix(".json"))["threat"] == "L2(eps=0.375, clip=(0.0, 1.0))"


def test_records_of_other_attacks_are_not_described_by_the_settings_of_an_interrupted_one(tmp_path, monkeypatch):
    """The process ends between the settings of an attack and its records."""
    networks = Networks(scale=QUICK, folder=tmp_path)
    result = networks.attacked(COAP)
    (path,) = tmp_path.glob("*/attacked/*.jsonl")
    content = jsonl.read_json(path.with_suffix(".json"))
    assert content["dataset"] == "digits"
    jsonl.write_json(path.with_suffix(".json"), {**content, "network_digest": "of others"})
    jsonl.rewrite(path, [{**record, "prediction": record["label"], "attack": None} for record in jsonl.read(path)])
    with monkeypatch.context() as patch:
        patch.setattr(Evaluation, "records", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            networks.attacked(COAP)
    assert networks.attacked(COAP) == result
    assert result.adversarial_accuracy < 1


def test_unstable_neurons_are_counted_after_each_epoch(shared):
    run, shares = shared.run(COAP), shared.unstable(COAP)
    records = jsonl.read(run.folder.unstable)
    assert [record["epoch"] for record in records] == [1, 2]
    assert [record["unstable"] for record in records] == shares
    x = run.recipe.dataset.load().train[:4][0]
    net, region = freeze(trace(run.model, (1, 8, 8)), x[:1])[0], run.recipe.threat.region(x)
    assert shares[-1] == neuron_states(net, region, boxes=coap.boxes(net, region)).unstable
    (row,) = Each(UnstableNeurons())(shared, [COAP])
    assert row["unstable, summed"] == pytest.approx(sum(shares))
    assert row["unstable"] == pytest.approx(100 * shares[-1])
    assert shared.unstable(replace(COAP, method="pgd")) == []


def test_an_interrupted_training_loses_no_count(tmp_path, monkeypatch):
    """The process ends after the state of epoch 1 was written, and before its neurons were counted."""
    networks = Networks(scale=QUICK, folder=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Following, "__call__", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            networks.unstable(COAP)
    (folder,) = tmp_path.iterdir()
    assert not (folder / "unstable.jsonl").exists()
    whole = Networks(scale=QUICK, folder=tmp_path / "whole").unstable(COAP)
    assert networks.unstable(COAP) == whole
    assert [record["epoch"] for record in jsonl.read(folder / "unstable.jsonl")] == [1, 2]
    (folder / "unstable.jsonl").unlink()
    with pytest.raises(ValueError, match=r"unstable\.jsonl lacks epoch 1: .* move it away to train it again"):
        networks.unstable(COAP)


def test_only_the_best_of_some_methods_is_shown(shared):
    rows = Each(RobustErrors())(shared, ALL["robust-accuracy 1"].networks(QUICK))
    best = ALL["robust-accuracy 1"].table(shared, ALL["robust-accuracy 1"].networks(QUICK))
    settings = {row["setting"] for row in rows}
    assert len(rows) == 5 * len(settings)
    assert len(best) == 2 * len(settings)
    for setting in settings:
        here = [row for row in rows if row["setting"] == setting]
        adversarial, certified = (row for row in best if row["setting"] == setting)
        assert adversarial["method"] == "AT"
        assert certified["robust error"] == min(row["robust error"] for row in here if row["method"] != "AT")


def test_budgets_are_those_of_the_recipes_in_the_order_of_their_radii(tmp_path):
    paper = Networks(scale=NETWORK_SCALES["paper"], folder=tmp_path)
    for dataset, budgets in BUDGETS.items():
        shown = [*keys(dataset, "linf"), *keys(dataset, "l2")]
        assert sorted(shown) == sorted(f"{dataset}-{budget}" for budget in budgets)
        every = [paper.recipe(NetworkOf(key, "pgd")) for key in (*keys(dataset, "l2", more=True),)]
        radii = [recipe.threat.eps for recipe in every]
        assert radii == sorted(radii)
        assert {(recipe.dataset.name, recipe.threat.name) for recipe in every} == {(dataset, "l2")}
    assert paper.recipe(NetworkOf("mnist-l2-1.5", "coap")).threat.eps == 1.5
    assert paper.recipe(NetworkOf("tinyimagenet-l2-2.5/255", "pgd")).threat.eps == 2.5 / 255
    assert set(MORE) < set(NETWORK_SCALES["small"].settings)
    small = Networks(scale=NETWORK_SCALES["small"], folder=tmp_path)
    for norm, stand_ins in STAND_IN.items():
        for radius, on_mnist in stand_ins.items():
            key = next(key for key in small.scale.settings if key.endswith(f"{norm}-{radius}"))
            threat = small.recipe(NetworkOf(key, "ibp")).threat
            assert (threat.name, threat.eps) == (norm, float(on_mnist))


def test_segments_differ_between_seeds_and_are_nested_in_k(tmp_path):
    small = Networks(scale=NETWORK_SCALES["small"], folder=tmp_path)
    shown = [small.recipe(network) for network in ALL["robust-accuracy 8a"].networks(small.scale)]
    assert {(recipe.threat.count, recipe.threat.seed) for recipe in shown} == {
        (count, seed) for count in (1, 2, 5, 10) for seed in range(3)
    }
    assert all(recipe.seed == recipe.threat.seed for recipe in shown)
    assert {(recipe.method.name, recipe.train_samples, recipe.epochs) for recipe in shown} == {
        ("line-search", 5000, 3), ("coap", 5000, 3),
    }  # fmt: skip
    assert {(recipe.threat.eps, recipe.accumulate) for recipe in shown} == {(5.0, 1)}
    assert all(ALL[f"robust-accuracy {number}"].drawing.error_bars for number in ("2b", "5c", "8a", "9a"))
    assert all(recipe.method.attack.points == 21 for recipe in shown if recipe.method.name == "line-search")
    assert all(recipe.method.projections is None for recipe in shown if recipe.method.name == "coap")
