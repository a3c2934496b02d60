"""Large files: thousands of boxes are read in one pass, with the same meaning as small ones."""

import random
import tracemalloc

import torch
from benchmarks.vnnlib_reading import boxes_text

from ctbench.vnnlib import parse_vnnlib


def test_many_boxes_are_many_cases():
    text, corners = boxes_text(boxes=300, inputs=20, seed=0)
    tracemalloc.start()
    prop = parse_vnnlib(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(prop.cases) == 300
    assert peak < 40 * len(text)  # a tree of all words takes several hundred bytes for each comparison
    for case, (lower, upper) in zip(prop.cases, corners, strict=True):
        assert case.lower.tolist() == list(map(float, lower))
        assert case.upper.tolist() == list(map(float, upper))


def test_runs_of_comparisons_mean_the_same_as_single_ones():
    """The same formulas in a form that is read one by one: with the number on the left."""
    generator = random.Random(1)
    names = [f"X_{i}" for i in range(3)]
    declared = "".join(f"(declare-const {name} Real)" for name in (*names, "Y_0"))
    texts = [[], []]
    for _ in range(60):
        parts = [[], []]
        for name in names:
            for number in (
                generator.choice(["0.1", "0.10", "1e-1", "-.5", "2.", "+3", "0.30000000000000001"]) for _ in "12"
            ):
                less, more = generator.choice(["<=", "<"]), generator.choice([">=", ">"])
                for part, form in zip(parts, ("({0} {1} {2})", "({3} {2} {1})"), strict=True):
                    part.append(form.format(less, name, number, less.replace("<", ">")))
                    part.append(form.format(more, name, f"-{number.lstrip('+-')}9", more.replace(">", "<")))
        for text, part in zip(texts, parts, strict=True):
            text.append(f"(and {' '.join(part)} (<= Y_0 0))")
    first, second = (parse_vnnlib(f"{declared}(assert (or {' '.join(text)}))") for text in texts)
    assert len(first.cases) > 10
    for one, other in zip(first.cases, second.cases, strict=True):
        assert one == other
        for left, right in zip((*one.around, *one.real.inside), (*other.around, *other.real.inside), strict=True):
            assert torch.equal(left, right)
