"""Claims of figures hold for numbers as the papers have them, and not for the opposite."""

import pytest

from ctbench.experiments import PAPERS, figures
from ctbench.experiments.networks import TITLES
from ctbench.experiments.scales import NETWORK_SCALES, SMALL_RADII
from ctbench.results import published_results

PAPER = NETWORK_SCALES["paper"]
SETTINGS = {
    ("mnist", 0.1): "mnist_01",
    ("mnist", 0.3): "mnist_03",
    ("cifar10", 2 / 255): "cifar10_2",
    ("cifar10", 8 / 255): "cifar10_8",
    ("tinyimagenet", 1 / 255): "tinyimagenet",
}
CERTIFIED = ("ibp", "crown_ibp", "sabr", "taps", "staps", "mtl_ibp")


def printed(paper: str, *tables: str, also: tuple[str, ...] = ()) -> list[dict]:
    """The rows of tables of a paper, as if they had been measured here: its own results, and other works' `also`."""
    rows = []
    for result in published_results():
        if result.paper != paper or result.table not in tables:
            continue
        key = next((key for (data, eps), key in SETTINGS.items() if data == result.dataset and eps == result.eps), "")
        numbers = {kind: getattr(result.accuracies, kind) for kind in ("natural", "adversarial", "certified")}
        errors = {
            f"{name} error": 100 - numbers[kind]
            for name, kind in (("standard", "natural"), ("robust", "adversarial"), ("certified", "certified"))
            if numbers[kind] is not None
        }
        ours = result.by == paper or result.method in also
        rows.append(
            {
                "setting": PAPER.settings[key].label if key else f"{result.dataset} {result.norm} {result.eps}",
                "radius": "small" if key in SMALL_RADII else "large",
                "data": result.dataset,
                "norm": result.norm,
                "eps": result.eps,
                "method": result.method,
                "by": "here" if ours else result.by,
                **numbers,
                **errors,
            }
        )
    return rows


@pytest.mark.parametrize(
    ("figure", "rows"),
    [
        ("ctbench table-1", printed("CTBench", "Table 1")),
        ("ctbench figure-1", [row for row in printed("CTBench", "Table 1") if row["setting"] == "MNIST, eps 0.3"]),
        ("sabr table-1", printed("Müller et al. 2023", "Table 1")),
        ("sabr table-2", printed("Müller et al. 2023", "Table 2", also=("IBP",))),
        ("taps table-1", printed("Mao et al. 2023", "Table 1", also=("IBP",))),
        ("robust-accuracy table-4", printed("De Bartolomeis et al. 2023", "Table 4")),
        ("robust-accuracy table-5", printed("De Bartolomeis et al. 2023", "Table 5")),
        ("robust-accuracy table-1", printed("De Bartolomeis et al. 2023", "Table 4", "Table 5")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_claim_holds_for_the_numbers_that_the_paper_prints(figure, rows):
    assert len(rows) >= 8
    finding = claim(figure)(rows)
    assert finding.holds, str(finding)


def claim(figure: str):
    paper, _, number = figure.partition(" ")
    return figures(paper)[number].test


def by_method(quantity: str, values: dict[str, float], **about) -> list[dict]:
    return [{"setting": "a", "method": TITLES[method], quantity: value, **about} for method, value in values.items()]


def along(axis: str, places: tuple[float, ...], **quantities: tuple[float, ...]) -> list[dict]:
    """Rows at places of an axis; "_" in names of quantities stands for a space."""
    columns = {name.replace("_", " "): values for name, values in quantities.items()}
    return [
        {"setting": "a", axis: place, **{name: values[number] for name, values in columns.items()}}
        for number, place in enumerate(places)
    ]


FRAGMENTED = {"standard": 0.4, "pgd": 0.2, "edac": 0.2, **dict.fromkeys(CERTIFIED, 0.1)}
USED = {"small": {"ibp": 0.3, "taps": 0.2, "mtl_ibp": 0.2}, "large": {"ibp": 0.2, "taps": 0.3, "mtl_ibp": 0.3}}
SPLIT = along("split", (0, 1, 4), natural=(1, 2, 3), box=(3, 2, 1))
ESTIMATES = {"interval": 0.3, "sabr": 0.2, "pgd": 0.2, "taps": 0.1}
AS_IN_PAPERS = {
    "ctbench figure-3": by_method("sampled", FRAGMENTED, eps=0.1),
    "ctbench figure-4": [row for radius, used in USED.items() for row in by_method("utilisation", used, radius=radius)],
    "ctbench figure-5": [{"setting": "a", "radius": "small", "tightness": x, "certified": -x} for x in (1.0, 2.0, 3.0)],
    "sabr table-4": by_method("training s", {"ibp": 1.0, "sabr": 2.0}),
    "sabr figure-3": by_method("share below 0", {"ibp": 0.8, "sabr": 0.7, "pgd": 0.6}),
    "sabr figure-6": along("lambda", (0.1, 0.4, 1.0), natural=(3, 2, 1), box=(1, 2, 3), certified=(1, 2, 1)),
    "sabr figure-8": by_method("interval", {"ibp": 0.2, "pgd": 82.0}, **{"lambda": 1.0}),
    "taps table-7": along("w", (0, 5, 20), natural=(1, 2, 3), certified=(1, 2, 1)),
    "taps table-8": [{"setting": "a", "variant": v, "certified": c} for v, c in (("single", 1.0), ("multi", 2.0))],
    "taps table-10": SPLIT,
    "taps table-11": SPLIT,
    "taps figure-5": SPLIT,
    "taps table-12": [
        {"setting": "a", "method": method, "w": w, "natural": value, "certified": value}
        for method, w, value in (("IBP", "IBP", 1.0), ("TAPS", 1, 2.0))
    ],
    "taps figure-6": [
        {"setting": "a", "method": "IBP", "estimate": name, "|error|": error} for name, error in ESTIMATES.items()
    ],
    "taps figure-7": along("connector", (0, 0.5, 1), own=(1, 2, 1)),
    "taps theorem-1": [
        {"setting": "a", "method": "IBP", "variance, product of means": 1.0, "variance, mean of products": 2.0}
    ],
    "robust-accuracy 3b": [
        {"setting": "a", "data": "d", "method": method, "eps": eps, "standard error": error, "robust error": error}
        for method, errors in (("AT", (1.0, 1.0)), ("COAP", (2.0, 3.0)))
        for eps, error in zip((0.5, 1.0), errors, strict=True)
    ],
    "robust-accuracy 5e": along("eps", (0.5, 1.0), unstable__summed=(1.0, 2.0)),
}


@pytest.mark.parametrize("figure", AS_IN_PAPERS)
def test_a_claim_holds_in_its_own_direction_alone(figure):
    rows = [
        {name.replace("unstable  summed", "unstable, summed"): v for name, v in row.items()}
        for row in AS_IN_PAPERS[figure]
    ]
    assert claim(figure)(rows).holds, str(claim(figure)(rows))
    axes = ("eps", "lambda", "w", "split", "connector", "tightness")
    opposite = [
        {name: -value if isinstance(value, int | float) and name not in axes else value for name, value in row.items()}
        for row in rows
    ]
    assert claim(figure)(opposite).holds is False


def test_every_figure_named_here_is_there():
    there = {f"{paper} {number}" for paper in PAPERS for number in figures(paper)}
    assert AS_IN_PAPERS.keys() <= there
