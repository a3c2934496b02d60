"""The arguments that define a network, its images and its regions."""

from __future__ import annotations

import argparse

from ctbench.cli.options import add_own, chosen, positive, radius


def add_to(command: argparse.ArgumentParser) -> None:
    """Add the options that define the subject of the command, at one radius."""
    add_network_to(command)
    command.add_argument(
        "--eps", type=radius, help="the radius, e.g. 0.1 or 8/255, in [0, 1] pixel space (default: the recipe's)"
    )
    add_kind_to(command)


def add_network_to(command: argparse.ArgumentParser) -> None:
    """Add the argument that names the network."""
    command.add_argument(
        "subject",
        metavar="SUBJECT",
        help="a run folder, a file of weights (.safetensors, or a state dict in .pt or .pth), a .onnx file, or "
        "MODULE:FUNCTION, a Python function that takes no arguments and returns a torch module",
    )


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
    add_network(command)
    add_own(command)


def add_network(command: argparse.ArgumentParser) -> None:
    """Add the options that name the network of a file of weights."""
    command.add_argument(
        "--network",
        metavar="NAME[,FIELD=VALUE...]",
        help="only for a file of weights: its network, e.g. cnn7 or cnn7,width=32 (ctbench list networks)",
    )
    command.add_argument("--normalize", action="store_true", help="with --network: begin with the data's normalisation")
