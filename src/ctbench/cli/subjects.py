"""The subject of `ctbench certify` and `ctbench attack`: a run, weights, an ONNX file, or a Python function."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path

from torch import Tensor, nn

from ctbench import zoo
from ctbench.cli.own import architecture, by_name, called
from ctbench.datasets import Data, Dataset, Examples, GivenData, Images, corrupted, datasets, published_corruption
from ctbench.networks import Given
from ctbench.onnx import can_replay, load_onnx, replay
from ctbench.regions import Threat, threat
from ctbench.results import CertificationFiles, RunFolder
from ctbench.results.runs import region_name
from ctbench.training import Recipe, load_network, load_run, load_weights, tensor_files
from ctbench.training.blueprint import Blueprint
from ctbench.training.checkpoints import blueprint_of
from ctbench.verify.cascade import Replay


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """A network, its test images, and the folder of the records."""

    model: nn.Module
    network: str
    dataset: str
    images: Examples  # the test set
    threat: Threat
    folder: RunFolder
    shifted: bool = False  # whether the test images are corrupted
    replay: Replay | None = None  # another implementation of the network
    selected_on_test: bool = False  # whether its weights were selected by their accuracy on these images

    @property
    def selection(self) -> dict[str, str]:
        """What settings of records say about the selection of the weights: nothing unless it was on test images."""
        return {"selected_on": "test"} if self.selected_on_test else {}

    @property
    def name(self) -> str:
        """The name of its files of records."""
        return f"{region_name(self.threat.name, self.threat.eps)}{f'-{self.dataset}' if self.shifted else ''}"

    @property
    def certification(self) -> CertificationFiles:
        """The files of its records."""
        return self.folder.certification(self.name)

    def at(self, eps: float) -> Subject:
        """The same at another radius."""
        return replace(self, threat=replace(self.threat, eps=eps))

    def samples(self, chosen: range | None) -> range:
        """The indices `chosen`; None chooses all images. Raises ValueError if there are fewer images."""
        size = len(self.images)
        chosen = range(size) if chosen is None else chosen
        if chosen.stop > size:
            raise ValueError(f"there are {size} test images: samples {chosen.start}:{chosen.stop} are not among them")
        return chosen


def subject(args: argparse.Namespace) -> Subject:
    """The subject that the options define.

    Raises:
        ValueError: the options do not fit together, or the subject cannot be certified; the message says why.
        FileNotFoundError: there is no such file or folder.
    """
    path = Path(args.subject)
    of_weights, of_function = path.suffix in tensor_files.SUFFIXES, _is_function(args.subject)
    if (args.network or args.normalize) and not of_weights:
        raise ValueError("--network and --normalize are for a file of weights; anything else has its own network")
    if not (of_weights or of_function or path.suffix == ".onnx"):
        return _of_run(zoo.working_copy(args.subject), args)
    if args.model:
        raise ValueError("--model is for the run of a module of your own; anything else has its own network")
    if args.eps is None or (args.dataset is None) == (args.data_from is None):
        run = f", or the run folder {path.parent}" if RunFolder(path.parent).recipe.is_file() else ""
        raise ValueError(
            f"{args.subject} does not define its eps or its data: give --eps and --dataset (or --data-from){run}"
        )
    if args.data_from:
        _check_not_shifted(args)
        name_of_data, data = args.data_from, called(args.data_from, Data)
    else:
        source = _shifted(dataset(args), args)
        name_of_data, data = source.title, source.load(args.data)
    name, model = (_of_weights if of_weights else _of_function if of_function else _of_onnx)(args, data)
    return Subject(
        model=model,
        network=name,
        dataset=name_of_data,
        images=data.test,
        threat=_threat(args.norm or "linf", args.eps, data.test),
        folder=RunFolder(Path("runs") / (_named_function(args.subject) if of_function else _named(path))),
        shifted=args.corruption is not None,
        replay=_replay(path) if path.suffix == ".onnx" else None,
    )


def _of_run(path: Path, args: argparse.Namespace) -> Subject:
    if path.is_file():
        suffixes = ", ".join((*tensor_files.SUFFIXES, ".onnx"))
        raise ValueError(f"{path} is neither a run folder nor a file of weights or a network ({suffixes})")
    if (args.dataset or args.dataset_path) and path.exists():
        raise ValueError("--dataset and --dataset-path are only for networks; a run has its own data: leave them out")
    loaded = load_run(path, model=called(args.model, nn.Module) if args.model else None)
    recipe = loaded.recipe
    name_of_data, data = _data_of_run(recipe, args)
    images = data.test
    eps = recipe.threat.eps if args.eps is None else args.eps
    return Subject(
        model=loaded.model,
        network=_name_of_network(recipe),
        dataset=name_of_data,
        images=images,
        threat=_threat(args.norm, eps, images) if args.norm else replace(recipe.threat, eps=eps),
        folder=loaded.folder,
        selected_on_test=recipe.select == "test",
        shifted=args.corruption is not None,
    )


def _is_function(subject: str) -> bool:
    return ":" in subject and not zoo.is_entry(subject) and not Path(subject).exists()


def _named_function(text: str) -> str:
    """The name of MODULE:FUNCTION or of FILE.py:FUNCTION, with the folders of the file."""
    module, _, function = text.rpartition(":")
    return f"{_named(Path(module)) if module.endswith('.py') else module}.{function}"


def _name_of_network(recipe: Recipe) -> str:
    network = recipe.network
    return network.module.rpartition(".")[2] if isinstance(network, Given) else network.name


def _data_of_run(recipe: Recipe, args: argparse.Namespace) -> tuple[str, Data]:
    """The name and the data of a run; data that were given in memory must be given again."""
    if args.data_from is None:
        dataset = _shifted(recipe.dataset, args)
        return dataset.title, dataset.load(args.data)
    if not isinstance(recipe.dataset, GivenData):
        raise ValueError(f"--data-from is only for data of your own; this run has {recipe.dataset.name}: leave it out")
    _check_not_shifted(args)
    return recipe.dataset.title, recipe.dataset.recognized(called(args.data_from, Data))


def _check_not_shifted(args: argparse.Namespace) -> None:
    if args.corruption is not None or args.severity is not None:
        raise ValueError("--corruption is for a named data set: leave it out, or corrupt the data that you give")


def _named(path: Path) -> str:
    """The name of a file with its folders, without suffix: every file that is called "weights" has its own name.

    Folders below the working folder are all in it, of others only the last one.
    """
    absolute, here = path.resolve(), Path.cwd().resolve()
    parts = absolute.relative_to(here).parts if absolute.is_relative_to(here) else absolute.parts[-2:]
    return "-".join((*parts[:-1], path.stem))


def _threat(name: str, eps: float, examples: Examples) -> Threat:
    """A threat model with its own data range for images, and without one for vectors."""
    return threat(name, eps) if isinstance(examples, Images) else threat(name, eps, clip=None)


def _of_weights(args: argparse.Namespace, data: Data) -> tuple[str, nn.Module]:
    if args.network is None:
        return blueprint_of(args.subject).network.name, load_network(args.subject)
    blueprint, model = named_network(args, data.input_shape, data.classes, data.mean, data.std)
    return blueprint.network.name, model


def named_network(
    args: argparse.Namespace,
    input_shape: tuple[int, ...],
    classes: int,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> tuple[Blueprint, nn.Module]:
    """The network that --network and --normalize name, with the weights of the file; tells how they were matched."""
    constants = {"mean": mean, "std": std} if args.normalize else {}
    network = architecture(args.network)
    blueprint = Blueprint(network=network, input_shape=input_shape, classes=classes, **constants)
    model = blueprint.build()
    matching = load_weights(model, args.subject)
    if matching.by == "order":
        print(f"{args.subject}: {matching}", file=sys.stderr)
    return blueprint, model.eval()


def _of_onnx(args: argparse.Namespace, data: Data) -> tuple[str, nn.Module]:
    model = load_onnx(args.subject)
    if model.input_shape != data.input_shape:
        raise ValueError(
            f"{args.subject} takes inputs of shape {model.input_shape}, but the images of {args.dataset} have shape "
            f"{data.input_shape}: give the data set of this network"
        )
    return Path(args.subject).stem, model


def _of_function(args: argparse.Namespace, data: Data) -> tuple[str, nn.Module]:
    model = called(args.subject, nn.Module)
    return args.subject, model.eval()


def dataset(args: argparse.Namespace) -> Dataset:
    """The data set that --dataset and --dataset-path name."""
    types = datasets()
    takes_path = args.dataset in types and any(field.name == "path" for field in fields(types[args.dataset]))
    if args.dataset in types and takes_path != (args.dataset_path is not None):
        raise ValueError(f"--dataset {args.dataset} {'needs' if takes_path else 'takes no'} --dataset-path")
    return by_name("--dataset", args.dataset, types, **({"path": args.dataset_path} if takes_path else {}))


def _shifted(dataset: Dataset, args: argparse.Namespace) -> Dataset:
    """The data set with corrupted test images, if the options say so."""
    if args.corruption is None:
        if args.severity is not None:
            raise ValueError(f"--severity {args.severity} has no --corruption: name one, e.g. --corruption fog")
        return dataset
    source, _, name = args.corruption.rpartition("/")
    if not source:
        return corrupted(dataset, name, severity=3 if args.severity is None else args.severity)
    return published_corruption(source, name, severity=args.severity, augmentation=dataset.augmentation)


def _replay(path: Path) -> Replay | None:
    """The outputs of ONNX Runtime for a file, if it is installed. Unlike a session, this function can be pickled."""
    if not can_replay():
        print("no onnxruntime: counterexamples are not replayed there (pip install onnxruntime)", file=sys.stderr)
        return None
    return partial(_outputs, path)


def _outputs(path: Path, x: Tensor) -> Tensor:
    return _session(path)(x)


_session = lru_cache(maxsize=1)(replay)
