"""`ctbench convert`: write weights as safetensors, which ctbench loads by itself, or as ONNX, which any tool reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import nn

from ctbench import zoo
from ctbench.cli import subjects
from ctbench.cli.arguments.convert import SUFFIXES
from ctbench.cli.options import check_place
from ctbench.cli.own import called
from ctbench.onnx import save_onnx
from ctbench.results import RunFolder
from ctbench.training import load_run, tensor_files
from ctbench.training.blueprint import Blueprint
from ctbench.training.checkpoints import blueprint_of, load_network, save_network


def run(args: argparse.Namespace) -> None:
    path = zoo.located(args.subject)
    of_run = path.is_dir()
    if not of_run and path.suffix not in tensor_files.SUFFIXES:
        suffixes = ", ".join(tensor_files.SUFFIXES)
        raise ValueError(f"{path} is neither a run folder nor a file of weights: give one of {suffixes}")
    if args.model and not of_run:
        raise ValueError(f"--model is for the run of a module of your own, not for {path}: give the run folder")
    if of_run and (args.network or args.to == "safetensors"):
        raise ValueError(
            f"{path} is a run, with its network and {RunFolder(path).weights}: only --to onnx, no --network"
        )
    out = args.out or (Path(f"{path.name}.onnx") if of_run else path.with_suffix(SUFFIXES[args.to]))
    if out.exists():
        raise ValueError(f"{out} exists already: choose another place with --out")
    check_place(out)
    blueprint, model = _of_run(path, args.model) if of_run else _network(args)
    if args.to == "onnx":
        save_onnx(model, out, blueprint.input_shape)
    else:
        save_network(model, blueprint, out)
    print(out)


def _of_run(path: Path, model: str | None) -> tuple[Blueprint, nn.Module]:
    loaded = load_run(path, model=called(model, nn.Module) if model else None)
    return blueprint_of(loaded.folder.weights), loaded.model


def _network(args: argparse.Namespace) -> tuple[Blueprint, nn.Module]:
    if args.network is None:
        return blueprint_of(args.subject), load_network(args.subject)
    if (args.dataset is None) == (args.input_shape is None):
        raise ValueError("--network also needs the data: give either --dataset or --input-shape (and --classes)")
    if args.dataset is not None:
        data = subjects.dataset(args).load(args.data)
        return subjects.named_network(args, data.input_shape, data.classes, data.mean, data.std)
    channels = args.input_shape[0]  # the file's own constants replace these
    return subjects.named_network(args, args.input_shape, args.classes, (0.0,) * channels, (1.0,) * channels)
