"""`ctbench analyse`: what training made of networks, measured on test images, with several runs side by side."""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from ctbench.analyses import Analysis, NetworkOnInputs, analyses
from ctbench.analyses.corrupted_tests import CorruptedTests
from ctbench.cli import subjects
from ctbench.cli.engines import engine
from ctbench.cli.options import check_changes, check_figure, check_out_folder, check_place, wide_console
from ctbench.cli.own import called
from ctbench.cli.subjects import Subject
from ctbench.datasets import Data
from ctbench.engine import Engine
from ctbench.files import write_whole
from ctbench.progress import progress_bars
from ctbench.regions import Threat
from ctbench.report import analyses as tables
from ctbench.report import analysis_figures
from ctbench.report.analyses import Result
from ctbench.results import AnalysisFiles, RunFolder
from ctbench.results.decimals import decimals
from ctbench.results.runs import method_name
from ctbench.training import Recipe, Run, codec

Asked = Analysis | CorruptedTests


def run(args: argparse.Namespace) -> None:
    chosen = configured(args.what.split(","), args.changes)
    if len(set(args.eps or ())) < len(args.eps or ()):
        raise ValueError(f"--eps is {','.join(f'{eps:g}' for eps in args.eps)}: name each radius once")
    if args.csv:
        check_place(args.csv)
    if args.plot:
        check_figure("--plot", args.plot)
    if args.out:
        check_out_folder(args.out)
    place = engine(args.on, args.device)
    results: dict[str, list[Result]] = {title: [] for title in chosen}
    with progress_bars(quiet=args.quiet) as progress:
        try:
            for path in args.runs:
                for title, result in _analysed(path, chosen, args, place, progress):
                    results[title].append(result)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; records are kept, and the same command continues") from None
    results = {title: tables.told_apart(several) for title, several in results.items()}
    _show(chosen, results)
    if args.csv:
        pairs = [(title, result) for title, several in results.items() for result in several]
        args.csv.parent.mkdir(parents=True, exist_ok=True)
        write_whole(args.csv, tables.as_csv(pairs).encode())
        print(args.csv)
    if args.plot:
        _draw(chosen, results, args.plot)


def kinds() -> dict[str, type[Analysis] | type[CorruptedTests]]:
    """All analyses by name, those of other images included."""
    return dict(sorted({**analyses(), CorruptedTests.name: CorruptedTests}.items()))


def configured(names: list[str], changes: list[str]) -> dict[str, Asked]:
    """Analyses with their options, by their titles: names, with a digest of the options that were changed.

    Raises:
        ValueError: an analysis is unknown or named twice, or a change is about another analysis or has a wrong value.
    """
    if len(set(names)) < len(names):
        raise ValueError(f"--what is {','.join(names)}: name each analysis once")
    check_changes(changes)
    chosen: dict[str, Asked] = {}
    for name in names:
        if name not in kinds():
            raise ValueError(f"no analysis is called {name!r}; there are {', '.join(kinds())}")
        plain = kinds()[name]()
        own = [change.removeprefix(f"{name}.") for change in changes if change.startswith(f"{name}.")]
        digest = hashlib.sha256(json.dumps(sorted(own)).encode()).hexdigest()[:6]
        chosen[f"{name}-{digest}" if own else name] = codec.with_changes(plain, own)
    stray = [change for change in changes if change.partition(".")[0] not in names]
    if stray:
        raise ValueError(f"--set {stray[0]}: it must begin with one of the analyses {', '.join(names)} and a dot")
    return chosen


def _analysed(
    path: str, chosen: dict[str, Asked], args: argparse.Namespace, engine: Engine, progress: Progress
) -> Iterator[tuple[str, Result]]:
    """The results of all analyses of a run, by title; parts with records are not computed again."""
    first = copy.copy(args)
    first.subject, first.eps = path, args.eps[0] if args.eps else None
    subject = subjects.subject(first)
    samples = subject.samples(args.samples)
    x, y = subject.images[samples.start : samples.stop]
    pair = NetworkOnInputs.of(subject.model.to(engine.home), x, y, first=samples.start, seed=args.seed)
    threats = [replace(subject.threat, eps=eps) for eps in args.eps or [subject.threat.eps]]
    recipe = Recipe.read(subject.folder.recipe) if subject.folder.recipe.is_file() else None
    place = RunFolder(args.out / subject.folder.path.name) if args.out else subject.folder
    for title, plain in chosen.items():
        if isinstance(plain, CorruptedTests):
            yield title, _on_corrupted_images(plain, subject, recipe, place, samples, args)
            continue
        asked = _of_run(plain, recipe)
        settings = {
            "analysis": asked.name,
            "options": codec.encode(asked),
            **_about(subject, recipe),
            "network_digest": pair.precisions.proof.digest(),
            "precision": str(pair.precisions.like.dtype),
            "seed": args.seed,
        }
        files = place.analysis(title)
        _measure(files, settings, asked, pair, threats, engine, progress, f"{subject.folder.path.name}: {title}")
        keys = {key for threat in threats for key in asked.keys(pair, threat)}
        yield title, Result(settings, files.read().only(keys), subject.folder.path)


def _on_corrupted_images(
    asked: CorruptedTests,
    subject: Subject,
    recipe: Recipe | None,
    place: RunFolder,
    samples: range,
    args: argparse.Namespace,
) -> Result:
    """What `ctbench corruptions` measures, with the same records.

    Raises:
        ValueError: the subject is not a run, or its images are already corrupted; or not the first ones are chosen.
    """
    if recipe is None or subject.shifted:
        raise ValueError(
            f"{asked.name} needs a run folder, whose test images it corrupts: leave out "
            f"{'--corruption' if subject.shifted else subject.network}"
        )
    if samples.start:
        raise ValueError(f"{asked.name} takes the first images, not {samples.start}:{samples.stop}: give --samples N")
    source = called(args.data_from, Data) if args.data_from else args.data
    run = Run(recipe, subject.model, subject.folder, source)
    count = None if args.samples is None else len(samples)
    result = asked(run, root=args.data, samples=count, device=args.device, place=place)
    return Result({"analysis": asked.name, **_about(subject, recipe)}, result.measurements(), subject.folder.path)


def _of_run(asked: Analysis, recipe: Recipe | None) -> Analysis:
    """The analysis with the training method of the run, as at the end of training, if it takes one and has none."""
    if not any(field.name == "method" for field in fields(asked)) or getattr(asked, "method") is not None:  # noqa: B009
        return asked
    if recipe is None:
        raise ValueError(f"{asked.name} needs a training method: give --set {asked.name}.method=NAME, or a run folder")
    return replace(asked, method=recipe.final_method)  # type: ignore[call-arg]


def _about(subject: Subject, recipe: Recipe | None) -> dict[str, Any]:
    return {
        "run": subject.folder.path.name,
        "dataset": subject.dataset,
        "network": subject.network,
        "method": method_name(recipe.to_json()["method"]) if recipe else None,
        "train_eps": recipe.final_eps if recipe else None,
        "norm": subject.threat.name,
        "threat": repr(replace(subject.threat, eps=0.0)),
        **subject.selection,
    }


def _measure(
    files: AnalysisFiles,
    settings: dict[str, Any],
    asked: Analysis,
    pair: NetworkOnInputs,
    threats: list[Threat],
    engine: Engine,
    progress: Progress,
    description: str,
) -> None:
    """Append the records that are missing."""
    with files.alone():
        done = {record.key: record for record in files.start(settings).records}
        count = sum(key not in done for threat in threats for key in asked.keys(pair, threat))
        task = progress.add_task(description, total=count, text="")
        for record in asked.records(pair, threats, done, engine=engine):
            files.append(record)
            progress.advance(task)


def _show(chosen: dict[str, Asked], results: dict[str, list[Result]]) -> None:
    console = wide_console()
    for title, asked in chosen.items():
        layout = asked.layout
        console.print(tables.table(title, results[title], layout.x_label if layout and layout.x_label else "x"))
        if layout and layout.kind == "scatter":
            for pairs in tables.beside_accuracies(results[title], layout.quantities[0]):
                print(pairs)
            _tell_of_others(title, results[title])


def _tell_of_others(title: str, results: list[Result]) -> None:
    """Say which runs were certified, but on other samples."""
    for result in results:
        for eps in result.measurements.radii:
            if result.certified_elsewhere(eps):
                print(
                    f"{title}: {result.labels[0]} was certified at eps {decimals(eps)}, but not on all "
                    f"{result.measurements.samples(eps)} samples here: give --samples"
                )


def _draw(chosen: dict[str, Asked], results: dict[str, list[Result]], path: Path) -> None:
    """Draw all analyses that have a figure: into the file itself, or files with their titles if there are several."""
    drawn = {title: asked.layout for title, asked in chosen.items() if asked.layout}
    if not drawn:
        with_figures = ", ".join(name for name, kind in kinds().items() if kind.layout)
        raise ValueError(f"--plot: none of {', '.join(chosen)} has a figure; {with_figures} have one")
    for title, layout in drawn.items():
        if (
            len(drawn) > 1
            and layout.kind == "scatter"
            and not tables.beside_accuracies(results[title], *layout.quantities)
        ):
            print(f"{title} has no figure: no run was certified on these samples at its radius (ctbench certify)")
            continue
        place = path if len(drawn) == 1 else path.with_stem(f"{path.stem}-{title}")
        analysis_figures.draw(results[title], layout, title, place)
        numbers = tables.as_csv(((title, result) for result in results[title]), accuracies=layout.kind == "scatter")
        write_whole(place.with_suffix(".csv"), numbers.encode())
        print(place)
