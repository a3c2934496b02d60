"""The subject of `ctbench certify` and `ctbench attack`: a run, weights, an ONNX file, or a Python function."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path

from torch import Tensor, nn

from ctbench.cli.options import by_name, chosen, imported, positive, radius
from ctbench.datasets import Data, Dataset, Examples, Images, corrupted, datasets, published_corruption
from ctbench.networks import architectures
from ctbench.onnx import can_replay, load_onnx, replay
from ctbench.regions import Threat, threat
from ctbench.results import RunFolder
from ctbench.training import load_network, load_run, load_weights
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

    @property
    def name(self) -> str:
        """The name of its files of records."""
        return f"{self.threat.name}-{self.threat.eps:.10g}{f'-{self.dataset}' if self.shifted else ''}"

    def samples(self, chosen: range | None) -> range:
        """The indices `chosen`; None chooses all images. Raises ValueError if there are fewer images."""
        size = len(self.images)
        chosen = range(size) if chosen is None else chosen
        if chosen.stop > size:
            raise ValueError(f"there are {size} test images: samples {chosen.start}:{chosen.stop} are not among them")
        return chosen


def add_to(command: argparse.ArgumentParser) -> None:
    """Add the options that define the subject of the command."""
    command.add_argument(
        "subject",
        metavar="SUBJECT",
        help="a run folder, a .safetensors file of weights, a .onnx file, or MODULE:FUNCTION, a Python function that "
        "takes no arguments and returns a torch module",
    )
    command.add_argument(
        "--eps", type=radius, help="the radius, e.g. 0.1 or 8/255, in [0, 1] pixel space (default: the recipe's)"
    )
    add_kind_to(command)


def add_kind_to(command: argparse.ArgumentParser) -> None:
    """Add the options that say what kind of network, images and regions the subject has."""
    command.add_argument(
        "--norm", metavar="NAME", help="linf, l2, l1 or another threat model (default: the recipe's, or linf)"
    )
    command.add_argument(
        "--dataset", metavar="NAME", help="the images, if the subject is not a run (ctbench list datasets)"
    )
    command.add_argument("--dataset-path", metavar="PATH", help="the path of the images, with --dataset folder")
    command.add_argument(
        "--corruption",
        metavar="[SET/]NAME",
        help="corrupt the test images: NAME is one of ours (ctbench list corruptions), SET/NAME published images, e.g. "
        "mnist-c/fog",
    )
    command.add_argument("--severity", type=positive, metavar="N", help="of --corruption, from 1 to 5 (default: 3)")
    command.add_argument("--samples", type=chosen, metavar="N|A:B", help="the first N test images, or images A to B-1")
    command.add_argument("--network", metavar="NAME", help="only for a file of weights (ctbench list networks)")
    command.add_argument("--normalize", action="store_true", help="with --network: begin with the data's normalisation")


def subject(args: argparse.Namespace) -> Subject:
    """The subject that the options define.

    Raises:
        ValueError: the options do not fit together, or the subject cannot be certified; the message says why.
        FileNotFoundError: there is no such file or folder.
    """
    path = Path(args.subject)
    of_weights, of_function = path.suffix == ".safetensors", ":" in args.subject and not path.exists()
    if (args.network or args.normalize) and not of_weights:
        raise ValueError("--network and --normalize are for a file of weights; anything else has its own network")
    if not (of_weights or of_function or path.suffix == ".onnx"):
        return _of_run(path, args)
    if args.eps is None or args.dataset is None:
        run = f", or the run folder {path.parent}" if RunFolder(path.parent).recipe.is_file() else ""
        raise ValueError(f"{args.subject} does not define its eps or its data: give --eps and --dataset{run}")
    dataset = _shifted(_dataset(args), args)
    data = dataset.load(args.data)
    name, model = (_of_weights if of_weights else _of_function if of_function else _of_onnx)(args, data)
    return Subject(
        model=model,
        network=name,
        dataset=dataset.title,
        images=data.test,
        threat=_threat(args.norm or "linf", args.eps, data.test),
        folder=RunFolder(Path("runs") / (args.subject.replace(":", ".") if of_function else path.stem)),
        shifted=args.corruption is not None,
        replay=_replay(path) if path.suffix == ".onnx" else None,
    )


def _of_run(path: Path, args: argparse.Namespace) -> Subject:
    if path.is_file():
        raise ValueError(f"{path} is neither a run folder nor a .safetensors or .onnx file")
    if (args.dataset or args.dataset_path) and path.exists():
        raise ValueError("--dataset and --dataset-path are only for networks; a run has its own data: leave them out")
    loaded = load_run(path)
    recipe = loaded.recipe
    dataset = _shifted(recipe.dataset, args)
    images = dataset.load(args.data).test
    eps = recipe.threat.eps if args.eps is None else args.eps
    return Subject(
        model=loaded.model,
        network=recipe.network.name,
        dataset=dataset.title,
        images=images,
        threat=_threat(args.norm, eps, images) if args.norm else replace(recipe.threat, eps=eps),
        folder=loaded.folder,
        shifted=args.corruption is not None,
    )


def _threat(name: str, eps: float, examples: Examples) -> Threat:
    """A threat model with its own data range for images, and without one for vectors."""
    return threat(name, eps) if isinstance(examples, Images) else threat(name, eps, clip=None)


def _of_weights(args: argparse.Namespace, data: Data) -> tuple[str, nn.Module]:
    if args.network is None:
        return blueprint_of(args.subject).network.name, load_network(args.subject)
    architecture = by_name("--network", args.network, architectures())
    blueprint = Blueprint.of(architecture, data)
    if not args.normalize:
        blueprint = replace(blueprint, mean=None, std=None)
    model = blueprint.build()
    load_weights(model, args.subject)
    return architecture.name, model.eval()


def _of_onnx(args: argparse.Namespace, data: Data) -> tuple[str, nn.Module]:
    model = load_onnx(args.subject)
    if model.input_shape != data.input_shape:
        raise ValueError(
            f"{args.subject} takes inputs of shape {model.input_shape}, but the images of {args.dataset} have shape "
            f"{data.input_shape}: give the data set of this network"
        )
    return Path(args.subject).stem, model


def _of_function(args: argparse.Namespace, data: Data) -> tuple[str, nn.Module]:
    module, _, function = args.subject.partition(":")
    try:
        model = getattr(imported(module), function)()
    except Exception as error:  # the user's function may raise any error
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{args.subject} made no network ({reason}): name a function without parameters") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{args.subject} returned a {type(model).__name__}: it must return a torch.nn.Module")
    return args.subject, model.eval()


def _dataset(args: argparse.Namespace) -> Dataset:
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
        print("no onnxruntime: counterexamples are not replayed there (pip install 'ctbench[replay]')", file=sys.stderr)
        return None
    return partial(_outputs, path)


def _outputs(path: Path, x: Tensor) -> Tensor:
    return _session(path)(x)


_session = lru_cache(maxsize=1)(replay)
