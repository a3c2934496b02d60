"""What `ctbench certify` and `ctbench attack` are about: a run, weights, an ONNX file, or what a function returns."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path

from torch import Tensor, nn

from ctbench.cli.options import by_name, chosen, imported, radius
from ctbench.datasets import Data, Dataset, Examples, Images, datasets
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
    """A network, the images that it is for, and where the records go."""

    model: nn.Module
    network: str
    dataset: str
    images: Examples  # of the test set
    threat: Threat
    folder: RunFolder
    replay: Replay | None = None  # the network as another program computes it

    @property
    def name(self) -> str:
        """What files of records about it are called."""
        return f"{self.threat.name}-{self.threat.eps:.10g}"

    def samples(self, asked: range | None) -> range:
        """The images that were asked for, all where none were named. Raises ValueError where there are not so many."""
        size = len(self.images)
        asked = range(size) if asked is None else asked
        if asked.stop > size:
            raise ValueError(f"there are {size} test images: samples {asked.start}:{asked.stop} are not among them")
        return asked


def add_to(command: argparse.ArgumentParser) -> None:
    """The options that say what the command is about."""
    command.add_argument(
        "subject",
        metavar="SUBJECT",
        help="a run folder, a .safetensors file of weights, a .onnx file, or MODULE:FUNCTION, a Python function that "
        "takes nothing and returns a torch module",
    )
    command.add_argument(
        "--norm", metavar="NAME", help="linf, l2, l1 or another threat model (default: the recipe's, or linf)"
    )
    command.add_argument(
        "--eps", type=radius, help="the radius, as 0.1 or 8/255, in [0, 1] pixel space (default: the recipe's)"
    )
    command.add_argument(
        "--dataset", metavar="NAME", help="the images, where there is no run to name them (ctbench list datasets)"
    )
    command.add_argument("--dataset-path", metavar="PATH", help="of the images, with --dataset folder")
    command.add_argument(
        "--samples", type=chosen, metavar="N|A:B", help="the first N test images, or those from A to B-1"
    )
    command.add_argument("--network", metavar="NAME", help="for a file of weights alone (ctbench list networks)")
    command.add_argument("--normalize", action="store_true", help="with --network: begin with the data's normalisation")


def subject(args: argparse.Namespace) -> Subject:
    """What the options say.

    Raises:
        ValueError: they do not fit together, or what they name cannot be certified; says why.
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
        raise ValueError(f"{args.subject} says neither its eps nor its data: give --eps and --dataset{run}")
    dataset = _dataset(args)
    data = dataset.load(args.data)
    name, model = (_of_weights if of_weights else _of_function if of_function else _of_onnx)(args, data)
    return Subject(
        model=model,
        network=name,
        dataset=dataset.name,
        images=data.test,
        threat=_threat(args.norm or "linf", args.eps, data.test),
        folder=RunFolder(Path("runs") / (args.subject.replace(":", ".") if of_function else path.stem)),
        replay=_replay(path) if path.suffix == ".onnx" else None,
    )


def _of_run(path: Path, args: argparse.Namespace) -> Subject:
    if path.is_file():
        raise ValueError(f"{path} is neither a run folder nor a .safetensors or .onnx file")
    if (args.dataset or args.dataset_path) and path.exists():
        raise ValueError("--dataset and --dataset-path are for a network alone; a run has its own: leave them out")
    loaded = load_run(path)
    recipe = loaded.recipe
    images = recipe.dataset.load(args.data).test
    eps = recipe.threat.eps if args.eps is None else args.eps
    return Subject(
        model=loaded.model,
        network=recipe.network.name,
        dataset=recipe.dataset.name,
        images=images,
        threat=_threat(args.norm, eps, images) if args.norm else replace(recipe.threat, eps=eps),
        folder=loaded.folder,
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
            f"{args.subject} takes inputs of shape {model.input_shape}, the images of {args.dataset} have shape "
            f"{data.input_shape}: give the data set of this network"
        )
    return Path(args.subject).stem, model


def _of_function(args: argparse.Namespace, data: Data) -> tuple[str, nn.Module]:
    module, _, function = args.subject.partition(":")
    try:
        model = getattr(imported(module), function)()
    except Exception as error:  # whatever other people's code raises
        told = f"{type(error).__name__}: {error}"
        raise ValueError(f"{args.subject} made no network ({told}): name a function without parameters") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{args.subject} returned a {type(model).__name__}: it must return a torch.nn.Module")
    return args.subject, model.eval()


def _dataset(args: argparse.Namespace) -> Dataset:
    types = datasets()
    takes_path = args.dataset in types and any(field.name == "path" for field in fields(types[args.dataset]))
    if args.dataset in types and takes_path != (args.dataset_path is not None):
        raise ValueError(f"--dataset {args.dataset} {'needs' if takes_path else 'takes no'} --dataset-path")
    return by_name("--dataset", args.dataset, types, **({"path": args.dataset_path} if takes_path else {}))


def _replay(path: Path) -> Replay | None:
    """ONNX Runtime's outputs for a file, if it is installed; can be sent to other processes, as its session cannot."""
    if not can_replay():
        print("no onnxruntime: counterexamples are not replayed there (pip install 'ctbench[replay]')", file=sys.stderr)
        return None
    return partial(_outputs, path)


def _outputs(path: Path, x: Tensor) -> Tensor:
    return _session(path)(x)


_session = lru_cache(maxsize=1)(replay)
