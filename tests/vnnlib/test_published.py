"""VNN-LIB: files of VNN-COMP."""

import gzip
import os
import re
from itertools import groupby
from pathlib import Path

import pytest
import torch

from ctbench.vnnlib import (
    Property,
    read_vnnlib,
    robustness,
)

# Published files

IN_PIXELS = ("mnistfc", "colt", "eran", "kw", "sdp")  # the others count in units of the network's normalisation


@pytest.fixture(scope="module")
def published() -> dict[str, tuple[Property, str]]:
    """Properties of VNN-COMP files, two of each network, in the folder vnncomp next to CTBENCH_DATA; with
    their first line."""
    if not os.environ.get("CTBENCH_DATA"):
        pytest.skip("CTBENCH_DATA is not set: no vnncomp next to it")
    folder = Path(os.environ["CTBENCH_DATA"]).parent / "vnncomp" / "vnnlib"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    networks = groupby(sorted(folder.glob("*.vnnlib.gz")), key=lambda path: path.name.split("__")[0])
    paths = [path for _, group in networks for path in list(group)[:2]]
    return {path.name: (read_vnnlib(path), first_line(path)) for path in paths}


def first_line(path: Path) -> str:
    with gzip.open(path, "rt") as file:
        return file.readline()


def test_published_files_are_robustness_of_ten_classes(published: dict[str, tuple[Property, str]]):
    labels = 0
    assert len(published) == 22
    for name, (prop, about) in published.items():
        (case,) = prop.cases
        assert (prop.inputs, prop.outputs) == (784 if "mnist" in name else 3072, 10)
        rows = torch.cat([alternative.rows for alternative in case.unsafe])
        assert rows.shape == (9, 10)
        winner = int(rows.sum(0).argmax())
        assert prop == robustness(case.lower, case.upper, winner, 10)
        if label := re.search(r"label:? (\d)", about):
            assert winner == int(label[1])
            labels += 1
    assert labels > 8


def test_published_boxes_are_as_wide_as_their_names_say(published: dict[str, tuple[Property, str]]):
    wide = {name: prop.cases[0] for name, (prop, _) in published.items() if name.startswith(IN_PIXELS)}
    assert len(wide) > 10
    for name, case in wide.items():
        match = re.search(r"_(?:eps)?(0\.\d+)\.vnnlib", name)
        assert match, name
        eps, rounding = float(match[1]), 1.1e-5  # names have five digits
        width, free = case.upper - case.lower, (case.lower > 0) & (case.upper < 1)
        assert free.any()
        assert (width[free] - 2 * eps).abs().max() < rounding
        assert ((width > eps - rounding) & (width < 2 * eps + rounding)).all()
        assert case.lower.min() >= 0
        assert case.upper.max() <= 1
