"""The table of published results, against lines of the papers."""

from collections import Counter

import pytest

from ctbench.results import Published, published_result, published_results

# dataset, eps, method, whose, and natural, adversarial and certified accuracy as printed (CTBench's columns: natural
# and certified of the literature and of CTBench, adversarial of CTBench)
CTBENCH = [  # Table 1
    ("mnist", 0.1, "TAPS", "Mao et al. 2023", (99.19, 98.39), (99.16, 98.52, 98.58)),
    ("mnist", 0.3, "MTL-IBP", "De Palma et al. 2024", (98.80, 93.62), (98.74, 93.90, 94.55)),
    ("cifar10", 2 / 255, "CROWN-IBP", "Xu et al. 2020", (71.52, 53.97), (67.60, 57.11, 57.28)),
    ("cifar10", 8 / 255, "IBP", "Shi et al. 2021", (48.94, 34.97), (48.51, 35.28, 35.48)),
    ("cifar10", 8 / 255, "STAPS", "Mao et al. 2023", (52.82, 34.65), (51.49, 35.11, 35.54)),
    ("tinyimagenet", 1 / 255, "SABR", "Müller et al. 2023", (28.85, 20.46), (30.58, 20.96, 21.16)),
]
OTHERS = [  # paper, table, dataset, eps, method, whose, natural, certified
    ("Müller et al. 2023", 1, "cifar10", 8 / 255, "l-infinity-distance net", "Zhang et al. 2022a", 54.30, 40.06),
    ("Müller et al. 2023", 1, "mnist", 0.3, "l-infinity-distance net", "Zhang et al. 2022a", 98.56, 93.20),
    ("Müller et al. 2023", 2, "mnist", 0.1, "COLT", "Balunovic & Vechev 2020", 99.2, 97.1),
    ("Müller et al. 2023", 2, "cifar10", 2 / 255, "IBP-R", "De Palma et al. 2022", 78.19, 61.97),
    ("Müller et al. 2023", 2, "cifar10", 2 / 255, "SABR", "Müller et al. 2023", 80.27, 61.57),
    ("Müller et al. 2023", 2, "tinyimagenet", 1 / 255, "CROWN-IBP", "Shi et al. 2021", 25.62, 17.93),
    ("Mao et al. 2023", 1, "mnist", 0.1, "SortNet", "Zhang et al. 2022b", 99.01, 98.14),
    ("Mao et al. 2023", 1, "cifar10", 8 / 255, "SortNet", "Zhang et al. 2022b", 54.84, 40.39),
    ("Mao et al. 2023", 1, "cifar10", 8 / 255, "IBP-R", "De Palma et al. 2022", 51.43, 27.87),
    ("Mao et al. 2023", 1, "tinyimagenet", 1 / 255, "STAPS", "Mao et al. 2023", 28.98, 22.16),
]
# paper, table: rows. Table 1 of CTBench: standard, PGD, EDAC and twice six certified methods, at five radii
ROWS = {
    ("CTBench", "Table 1"): 5 * (3 + 12),
    ("Müller et al. 2023", "Table 1"): 4 * 2,
    ("Müller et al. 2023", "Table 2"): 4 + 4 + 6 + 5 + 3,
    ("Mao et al. 2023", "Table 1"): 6 + 6 + 7 + 7 + 5,
    ("De Bartolomeis et al. 2023", "Table 4"): 8 * 5,
    ("De Bartolomeis et al. 2023", "Table 5"): 8 * 5,
}


@pytest.mark.parametrize(("dataset", "eps", "method", "by", "literature", "ours"), CTBENCH)
def test_rows_of_ctbench(dataset, eps, method, by, literature, ours):
    found = published_result(dataset, "linf", eps, method, paper="CTBench", by=by).accuracies
    source = f"{by}, by CTBench, Table 1"
    assert found == Published(natural=literature[0], certified=literature[1], source=source)
    found = published_result(dataset, "linf", eps, method, paper="CTBench").accuracies
    natural, certified, adversarial = ours
    assert found == Published(natural=natural, certified=certified, adversarial=adversarial, source="CTBench, Table 1")


@pytest.mark.parametrize(("paper", "table", "dataset", "eps", "method", "by", "natural", "certified"), OTHERS)
def test_rows_of_other_papers(paper, table, dataset, eps, method, by, natural, certified):
    found = published_result(dataset, "linf", eps, method, paper=paper, by=by)
    assert (found.accuracies.natural, found.accuracies.certified) == (natural, certified)
    assert found.accuracies.adversarial is None
    assert found.table == f"Table {table}"


def test_errors_of_de_bartolomeis_et_al_are_accuracies():
    """Table 5, l2 eps 36/255: robust error 0.447, standard error 0.399."""
    found = published_result("cifar10", "l2", 36 / 255, "COAP", paper="De Bartolomeis et al. 2023").accuracies
    assert (found.natural, found.adversarial, found.certified) == (60.1, 55.3, None)


def test_every_row_of_the_tables_is_there_once():
    results = published_results()
    assert Counter((result.paper, result.table) for result in results) == ROWS
    keys = Counter((r.dataset, r.norm, r.eps, r.method, r.by, r.paper, r.table) for r in results)
    assert set(keys.values()) == {1}


def test_certified_accuracies_are_not_above_adversarial_or_natural_ones():
    for result in published_results():
        shown = result.accuracies
        values = [v for v in (shown.natural, shown.adversarial, shown.certified) if v is not None]
        assert values == sorted(values, reverse=True), result


def test_an_unknown_result_is_an_error():
    with pytest.raises(ValueError, match=r"CTBench has no result of CTBench for COLT on mnist at linf 0\.1: see"):
        published_result("mnist", "linf", 0.1, "COLT", paper="CTBench")
