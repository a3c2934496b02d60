"""The arguments of `ctbench convert`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ctbench.cli.arguments import subject
from ctbench.cli.options import Commands, add_data, add_model

SUFFIXES = {"safetensors": ".safetensors", "onnx": ".onnx"}


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "convert", help="write weights of others, or the network of a run, as safetensors or ONNX"
    )
    command.add_argument(
        "subject",
        metavar="FILE",
        help="weights: .safetensors, or a state dict in .pt or .pth; or a run folder",
    )
    command.add_argument("--to", required=True, choices=SUFFIXES, help="safetensors, with the network in it, or onnx")
    subject.add_network(command)
    add_model(command)
    command.add_argument("--dataset", metavar="NAME", help="with --network: the data that the network is for")
    command.add_argument("--dataset-path", metavar="PATH", help="the path of the images, with --dataset folder")
    command.add_argument(
        "--input-shape",
        type=sizes,
        metavar="C,H,W",
        help="with --network, in place of --dataset: the shape of an input",
    )
    command.add_argument("--classes", type=int, default=10, metavar="K", help="with --input-shape (default: 10)")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="the new file (default: next to FILE; of a run, in this folder)"
    )
    add_data(command)


def sizes(text: str) -> tuple[int, ...]:
    """The shape of an input, e.g. 3,32,32."""
    if not all(size.isdecimal() and int(size) for size in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape, e.g. 3,32,32")
    return tuple(map(int, text.split(",")))
