"""Plots of `ctbench compare`."""

from pathlib import Path


def test_compare_draws_one_accuracy_over_another(succeeds, fails, run):
    assert "none of the runs has been certified" in fails("compare", run, "--plot", "natural,certified")
    succeeds("certify", run, "--samples", 20, "--stages", "interval")
    out = succeeds("compare", run, "--plot", "natural,certified", "--figure", "figures/plot.svg")
    assert out.endswith("figures/plot.svg\n")
    assert Path("figures/plot.svg").read_text().startswith("<?xml")
    succeeds("compare", run, "--plot", "natural,adversarial")
    assert Path("compare.png").is_file()
    assert "--plot is 'natural': give two accuracies" in fails("compare", run, "--plot", "natural")
