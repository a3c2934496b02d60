"""`ctbench convert`: write weights as safetensors, which ctbench loads by itself, or as ONNX, which any tool reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from torch import nn

from ctbench.cli import subjects
from ctbench.cli.options import Commands, add_data, check_place
from ctbench.onnx import save_onnx
from ctbench.training import tensor_files
from ctbench.training.blueprint import Blueprint
from ctbench.training.checkpoints import blueprint_of, load_network, save_network

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx"}


def add_to(commands: Commands) -> None:
    command = commands.add_parser("convert", help="write weights of others as safetensors or ONNX")
    command.add_argument(
        "subject", type=Path, metavar="FILE", help="weights: .safetensors, or a state dict in .pt or .pth"
    )
    command.add_argument("--to", required=True, choices=SUFFIXES, help="safetensors, with the network in it, or onnx")
    subjects.add_network(command)
    command.add_argument("--dataset", metavar="NAME", help="with --network: the data that the network is for")
    command.add_argument("--dataset-path", metavar="PATH", help="the path of the images, with --dataset folder")
    command.add_argument(
        "--input-shape",
        type=sizes,
        metavar="C,H,W",
        help="with --network, in place of --dataset: the shape of an input",
    )
    command.add_argument("--classes", type=int, default=10, metavar="K", help="with --input-shape (default: 10)")
    command.add_argument("--out", type=Path, metavar="FILE", help="the new file (default: next to FILE)")
    add_data(command)
    command.set_defaults(run=run)


def sizes(text: str) -> tuple[int, ...]:
    """The shape of an input, e.g. 3,32,32."""
    if not all(size.isdecimal() and int(size) for size in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape, e.g. 3,32,32")
    return tuple(map(int, text.split(",")))


def run(args: argparse.Namespace) -> None:
    if args.subject.suffix not in tensor_files.SUFFIXES:
        raise ValueError(f"{args.subject} is not a file of weights: give one of {', '.join(tensor_files.SUFFIXES)}")
    out = args.out or args.subject.with_suffix(SUFFIXES[args.to])
    if out.exists():
        raise ValueError(f"{out} exists already: choose another place with --out")
    check_place(out)
    blueprint, model = _network(args)
    if args.to == "onnx":
        save_onnx(model, out, blueprint.input_shape)
    else:
        save_network(model, blueprint, out)
    print(out)


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
