"""The figures that can be reproduced: their quantities are measured, and their settings are those of the papers."""

from dataclasses import replace

import pytest

from ctbench.experiments import (
    PAPERS,
    TINY,
    Experiment,
    ExperimentScale,
    Figure,
    NetworkFigure,
    Trial,
    figures,
    measure,
)
from ctbench.training import SGD

ALL = [(paper, figure) for paper in PAPERS for figure in figures(paper).values() if isinstance(figure, Figure)]
ROBUST_ACCURACY = [figure.number for paper, figure in ALL if paper == "robust-accuracy"]
EXPERIMENTS = {(paper, figure.experiment.name): figure.experiment for paper, figure in ALL}


@pytest.fixture(params=EXPERIMENTS, ids="-".join)
def experiment(request) -> Experiment:
    return EXPERIMENTS[request.param]


def shown_by(experiment: Experiment) -> list[Figure]:
    return [figure for _, figure in ALL if figure.experiment is experiment]


def shrunk(trial: Trial) -> Trial:
    """With few samples, epochs and attacks."""
    data = replace(trial.recipe.dataset, samples=12, test_samples=8)
    recipe = replace(trial.recipe, dataset=data, batch_size=12, epochs=2)
    measures = replace(trial.measures, attacks=("pgd",), followed=min(8, trial.measures.followed))
    return replace(trial, recipe=recipe, measures=measures)


def test_what_figures_show_is_measured(experiment):
    *_, last = experiment.trials(replace(TINY, seeds=1))  # of COAP, at the last place
    record = measure(shrunk(last))
    for figure in shown_by(experiment):
        plot = figure.plot
        quantities = record["epochs"] if plot.epochs else record
        assert {panel.quantity for panel in plot.panels} <= set(quantities)
        assert {plot.best, "train_error"} <= set(record)


def test_lines_of_figures_are_series_of_their_experiments(experiment):
    trials = experiment.trials(ExperimentScale(seeds=1))
    for figure in shown_by(experiment):
        assert set(figure.plot.series) <= {trial.series for trial in trials}
        assert not figure.plot.epochs or len({trial.x for trial in trials}) == 1
        assert figure.plot.title
        assert figure.claim


def test_trials_are_seed_by_seed_and_each_is_another(experiment):
    trials = experiment.trials(ExperimentScale(seeds=3))
    assert [trial.recipe.seed for trial in trials] == sorted(trial.recipe.seed for trial in trials)
    assert len({tuple(trial.key.values()) for trial in trials}) == len(trials)
    assert all(trial.recipe.dataset.seed == trial.recipe.seed for trial in trials)
    again = experiment.trials(ExperimentScale(seeds=1))
    assert trials[: len(trials) // 3] == again


def test_trials_at_a_tiny_scale_are_few_and_short(experiment):
    trials = experiment.trials(TINY)
    assert len(trials) <= 12
    assert {trial.recipe.seed for trial in trials} == {0, 1}
    for trial in trials:
        assert (trial.recipe.epochs, trial.recipe.dataset.test_samples) == (3, 100)
    whole = experiment.trials(ExperimentScale(seeds=1))
    assert {trial.series for trial in trials} == {trial.series for trial in whole}
    assert {trial.x for trial in trials} == {whole[0].x, whole[-1].x}
    assert len({trial.digest for trial in trials}) == len(trials)


@pytest.mark.parametrize("paper", dict(ALL))
def test_numbers_and_experiments_have_one_meaning_in_a_paper(paper):
    assert list(figures(paper).values()) == list(PAPERS[paper].FIGURES)
    listed = [figure for figure in PAPERS[paper].FIGURES if isinstance(figure, Figure)]
    assert len({figure.experiment.name for figure in listed}) == len({id(figure.experiment) for figure in listed})


def numbered(*parts: str) -> set[str]:
    """Numbers with a common prefix: "table 1 2 4-6" is table-1, table-2, table-4, table-5 and table-6."""
    names = set()
    for part in parts:
        kind, *numbers = part.split()
        for number in numbers:
            first, _, last = number.partition("-")
            names |= {f"{kind}-{k}" for k in range(int(first), int(last or first) + 1)}
    return names


EVERY_FIGURE = {
    "ctbench": numbered("table 1 2 8-10", "figure 1 3-9"),
    "sabr": numbered("table 1 2 4-6", "figure 3-9") | {"theorem-4.1", "box-growth"},
    "taps": numbered("table 1 4 6-14", "figure 5-9", "theorem 1") | {"figure-1-left", "figure-1-right"},
    "robust-accuracy": {
        *("1", "2a", "2b", "3a", "3b", "4a", "5b", "5c", "5d", "5e", "5f", "6a", "6b", "7a", "7b", "8a", "8b", "9a"),
        *("9b", "inner-radius", "inner-radius-segments", "table-1", "table-4", "table-5"),
    },
    "generalisation": {
        *("1", "2", "3", "4a", "4b", "4c-separable", "4c-spheres", "5b", "5cd", "6ab", "6cd", "sigma"),
    },
}


@pytest.mark.parametrize("paper", PAPERS)
def test_every_figure_and_table_with_numbers_can_be_reproduced(paper):
    """Except drawings, and tables of hyper-parameters."""
    assert set(figures(paper)) == EVERY_FIGURE[paper]
    assert all(isinstance(figure, Figure | NetworkFigure) for figure in figures(paper).values())


def test_an_unknown_paper_is_refused():
    with pytest.raises(ValueError, match="no paper is called 'magic'; there are ctbench, generalisation"):
        figures("magic")


# -------------------------------------------------------------------------------------- scales


@pytest.mark.parametrize(
    ("points", "expected"),
    [(None, [1, 2, 4, 6, 8]), (9, [1, 2, 4, 6, 8]), (5, [1, 2, 4, 6, 8]), (3, [1, 4, 8]), (2, [1, 8]), (1, [1])],
)
def test_some_places_are_the_first_the_last_and_what_lies_between(points, expected):
    assert ExperimentScale(seeds=1, points=points).places((1, 2, 4, 6, 8)) == expected


def test_places_are_different_ones():
    for count in range(1, 12):
        for points in range(1, count + 1):
            assert len(set(ExperimentScale(seeds=1, points=points).places(range(count)))) == points


@pytest.mark.parametrize("name", ["seeds", "epochs", "test_samples", "points", "candidates"])
def test_scales_of_nothing_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0: it must be at least 1"):
        ExperimentScale(**{"seeds": 1, name: 0})


# -------------------------------------------------------------------------------------- the papers' settings


def settings(experiment: Experiment) -> dict[str, object]:
    """The settings in the papers' appendices, if all trials have them in common."""
    claims = set()
    for trial in experiment.trials(ExperimentScale(seeds=1)):
        recipe, data = trial.recipe, trial.recipe.dataset
        assert recipe.network.hidden == (100,)
        assert recipe.batch_size == data.samples
        assert recipe.optimizer == SGD(lr=trial.candidate, momentum=recipe.optimizer.momentum)
        assert trial.measures.attacks == ("apgd-ce", "apgd-dlr")
        claims.add((data.samples, data.dimension, data.test_samples, recipe.epochs, recipe.optimizer.momentum))
    (common,) = claims
    return dict(zip(("n", "d", "tests", "epochs", "momentum"), common, strict=True))


def lines(experiment: Experiment) -> dict[str, set[object]]:
    trials = experiment.trials(ExperimentScale(seeds=1))
    return {
        "series": {(trial.series, trial.recipe.method.name) for trial in trials},
        "rates": {trial.candidate for trial in trials},
    }


@pytest.mark.parametrize("number", ROBUST_ACCURACY)
def test_settings_of_robust_accuracy(number):
    """Section 3 and App. A.3; k is at most d."""
    figure = figures("robust-accuracy")[number]
    assert settings(figure.experiment) == {"n": 500, "d": 10, "tests": 10_000, "epochs": 150, "momentum": 0.95}
    search = "line-search" if number in ("2a", "5b", "inner-radius-segments") else "pgd"
    assert lines(figure.experiment) == {"series": {("AT", search), ("COAP", "coap")}, "rates": {0.1, 0.01, 0.001}}
    assert figure.experiment.seeds == 5
    assert (figure.plot.best, figure.plot.fitting, figure.plot.spread) == ("robust_error", False, "standard error")


@pytest.mark.parametrize(
    ("number", "eps", "margin", "threat"),
    [
        ("2a", 5.0, 20, "random-segments"),
        ("5b", 3.0, 20, "random-segments"),
        ("3a", None, 20, "l2"),
        ("5d", None, 20, "l2"),
        ("4a", 4.0, None, "l2"),
        ("5f", 5.0, None, "l2"),
        ("6a", None, 20, "linf"),
        ("7a", None, 20, "linf"),
        ("6b", 1.0, None, "linf"),
        ("7b", 1.0, None, "linf"),
    ],
)
def test_what_figures_of_robust_accuracy_vary(number, eps, margin, threat):
    """The number of components, eps, or the inverse margin; None is the value on the axis."""
    for trial in figures("robust-accuracy")[number].experiment.trials(ExperimentScale(seeds=2)):
        recipe = trial.recipe
        assert recipe.threat.name == threat
        assert recipe.threat.eps == (trial.x if eps is None else eps)
        assert recipe.dataset.margin == (1 / trial.x if margin is None else margin)
        assert recipe.threat.clip is None
        if threat == "random-segments":
            assert (recipe.threat.count, recipe.threat.seed) == (trial.x, recipe.seed)


@pytest.mark.parametrize(
    ("number", "expected", "threat"),
    [
        ("4a", {"n": 50, "d": 1000, "tests": 1000, "epochs": 150, "momentum": 0.95}, "l2"),
        ("4b", {"n": 50, "d": 100, "tests": 1000, "epochs": 150, "momentum": 0.95}, "l2"),
        ("5b", {"n": 50, "d": 100, "tests": 1000, "epochs": 150, "momentum": 0.95}, "l2"),
        ("6ab", {"n": 50, "d": 1000, "tests": 100_000, "epochs": 100, "momentum": 0}, "first-coordinate"),
        ("6cd", {"n": 10_000, "d": 1000, "tests": 100_000, "epochs": 100, "momentum": 0}, "first-coordinate"),
    ],
)
def test_settings_of_generalisation(number, expected, threat):
    """Sections 3 and 4, App. D.1 and D.2, except for the test samples in balls: the paper has 100,000."""
    figure = figures("generalisation")[number]
    assert settings(figure.experiment) == expected
    search = "line-search" if threat == "first-coordinate" else "pgd"
    series = {("AT", search), ("COAP", "coap")} | ({("ST", "standard")} if number != "5b" else set())
    assert lines(figure.experiment) == {"series": series, "rates": {0.1, 0.01, 0.001}}
    assert figure.experiment.seeds == 15
    assert (figure.plot.best, figure.plot.fitting, figure.plot.spread) == ("robust_error", True, "standard deviation")
    for trial in figure.experiment.trials(ExperimentScale(seeds=1)):
        data, recipe = trial.recipe.dataset, trial.recipe
        assert (recipe.threat.name, recipe.threat.eps, recipe.threat.clip) == (threat, trial.x, None)
        if data.name == "spheres":
            assert (data.inner_radius, data.inner_radius + data.margin) == (1, 12)
        else:
            assert data.margin == 6


@pytest.mark.parametrize("paper", dict(ALL))
def test_adversarial_training_searches_as_the_papers_do(paper):
    """Auto-PGD of 10 steps from 1 start; on segments exactly. COAP is also exact."""
    for figure in (figure for name, figure in ALL if name == paper):
        for trial in figure.experiment.trials(TINY):
            method = trial.recipe.method
            if method.name == "pgd":
                assert (method.attack.name, method.attack.steps, method.attack.restarts) == ("apgd", 10, 1)
            elif method.name == "line-search":
                assert method.attack is None
            elif method.name == "coap":
                assert method.projections is None
