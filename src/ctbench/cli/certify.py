"""`ctbench certify`: prove for test images that a trained network is right on the whole region around them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import nn

from ctbench.cli.options import Commands, add_data, add_device, positive
from ctbench.datasets import Dataset, datasets
from ctbench.networks import architectures
from ctbench.results import Certification, CertificationFiles, RunFolder, SampleRecord, Verdict
from ctbench.training import load_network, load_run, load_weights
from ctbench.training.blueprint import Blueprint
from ctbench.training.checkpoints import blueprint_of
from ctbench.verify import DEFAULT_STAGES, certify

CASCADE = ("clean", *(stage.title for stage in DEFAULT_STAGES))


def add_to(commands: Commands) -> None:
    command = commands.add_parser("certify", help="certify the test images of a run")
    command.add_argument("run_path", type=Path, metavar="RUN", help="a run folder, or a safetensors file of weights")
    command.add_argument("--eps", type=float, help="the radius, in [0, 1] pixel space (default: the recipe's)")
    command.add_argument("--samples", type=positive, metavar="N", help="only the first N test images")
    command.add_argument("--network", choices=sorted(architectures()), help="for a file of weights alone")
    command.add_argument("--dataset", choices=sorted(datasets()), help="for a file of weights alone")
    command.add_argument("--dataset-path", metavar="PATH", help="of the images, with --dataset folder")
    command.add_argument("--normalize", action="store_true", help="with --network: begin with the data's normalisation")
    command.add_argument("--out", type=Path, metavar="FILE", help="the records (default: in the run folder)")
    command.add_argument("--resume", action="store_true", help="keep the records there are, certify the rest")
    command.add_argument(
        "--no-confirm",
        dest="confirm",
        action="store_false",
        help="trust single precision: do not confirm in double",
    )
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_device(command)
    command.set_defaults(run=run)


@dataclass(frozen=True, eq=False)
class _Subject:
    """What is certified: a network, the data that it is for, and where the records go."""

    model: nn.Module
    dataset: Dataset
    network: str
    eps: float
    folder: RunFolder


def run(args: argparse.Namespace) -> None:
    subject = _of_file(args) if args.run_path.suffix == ".safetensors" else _of_run(args)
    eps = subject.eps
    x, y = subject.dataset.load(args.data).test[: args.samples]
    files = CertificationFiles(args.out) if args.out else subject.folder.certification(f"linf-{eps:.10g}")
    about = {
        "eps": eps,
        "dataset": subject.dataset.name,
        "network": subject.network,
    }
    with _progress(len(x), quiet=args.quiet) as watch:
        found = certify(
            subject.model.to(args.device),
            x,
            y,
            eps=eps,
            confirm=args.confirm,
            files=files,
            about=about,
            resume=args.resume,
            watch=watch,
        )
    show(found, eps)
    print(files.records)


def _of_run(args: argparse.Namespace) -> _Subject:
    if args.run_path.is_file():
        raise ValueError(f"{args.run_path} is neither a run folder nor a .safetensors file of weights")
    if args.network or args.dataset or args.normalize:
        raise ValueError("--network, --dataset and --normalize are for a file of weights; a run has its own")
    loaded = load_run(args.run_path)
    recipe, folder = loaded.recipe, loaded.folder
    eps = recipe.threat.eps if args.eps is None else args.eps
    return _Subject(loaded.model, recipe.dataset, recipe.network.name, eps, folder)


def _dataset(args: argparse.Namespace) -> Dataset:
    kind = datasets()[args.dataset]
    takes_path = any(field.name == "path" for field in fields(kind))
    if takes_path != (args.dataset_path is not None):
        raise ValueError(f"--dataset {args.dataset} {'needs' if takes_path else 'takes no'} --dataset-path")
    return kind(path=args.dataset_path) if takes_path else kind()  # type: ignore[call-arg]


def _of_file(args: argparse.Namespace) -> _Subject:
    if args.eps is None or args.dataset is None:
        raise ValueError("a file of weights says neither its eps nor its data: give --eps and --dataset")
    dataset = _dataset(args)
    folder = RunFolder(Path("runs") / args.run_path.stem)
    if args.network is None:
        model, name = load_network(args.run_path), blueprint_of(args.run_path).network.name
    else:
        architecture = architectures()[args.network]()
        blueprint = Blueprint.of(architecture, dataset.load(args.data))
        if not args.normalize:
            blueprint = replace(blueprint, mean=None, std=None)
        model, name = blueprint.build(), architecture.name
        load_weights(model, args.run_path)
    return _Subject(model, dataset, name, args.eps, folder)


@contextmanager
def _progress(samples: int, *, quiet: bool) -> Iterator[Callable[[SampleRecord], None]]:
    """A bar with the verdicts so far, where a person is watching."""
    console = Console(stderr=True)
    columns = (
        TextColumn("[bold]certify"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("", total=samples, text="")
        seen = dict.fromkeys(Verdict, 0)

        def watch(record: SampleRecord) -> None:
            seen[record.verdict] += 1
            text = "  ".join(f"{verdict} {count}" for verdict, count in seen.items())
            progress.update(task, advance=1, text=text)

        yield watch


def show(found: Certification, eps: float) -> None:
    """Print the accuracies, and what each stage decided."""
    table = Table("stage", *(str(verdict) for verdict in Verdict))
    decided = found.stages
    for stage in (stage for stage in CASCADE if stage in decided):
        table.add_row(stage, *(str(decided[stage].get(verdict, 0)) for verdict in Verdict))
    table.add_row("[bold]all", *(f"[bold]{count}" for count in found.counts.values()))
    console = Console()
    console.print(table)
    console.print(
        f"{len(found)} samples, linf eps {eps:g}: natural {100 * found.natural_accuracy:.2f} %, adversarial "
        f"{100 * found.adversarial_accuracy:.2f} %, certified {100 * found.certified_accuracy:.2f} %, "
        f"{found.seconds:.1f} s",
        highlight=False,
        soft_wrap=True,
    )
    failed = [record for record in found if record.reason]
    if failed:
        print(
            f"{len(failed)} samples stayed open because a stage failed, as sample {failed[0].index}: {failed[0].reason}"
        )
