"""The arguments of `ctbench attack`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.arguments import subject
from ctbench.cli.options import Commands, add_attack_strength, add_data, add_device

ATTACKS = "pgd,apgd-ce,apgd-dlr,apgd-t"  # as `ctbench.attacks.evaluation.DEFAULT`


def add_to(commands: Commands) -> None:
    command = commands.add_parser("attack", help="attack test images of a run, of weights or of an ONNX file")
    subject.add_to(command)
    command.add_argument(
        "--attacks",
        default=ATTACKS,
        metavar="A,B,...",
        help="separated by commas, in order: pgd, apgd-ce, apgd-dlr, apgd-t, line-search (along segments), autoattack, "
        "autoattack-plus, or any other of ctbench list attacks (default: %(default)s)",
    )
    add_attack_strength(command)
    command.add_argument(
        "--certified",
        type=Path,
        metavar="FILE",
        help="records of certify for this network, norm and radius: certified samples are not attacked",
    )
    command.add_argument("--out", type=Path, metavar="FILE", help="the records (default: in the run folder)")
    command.add_argument("--quiet", action="store_true", help="show no progress")
    add_data(command)
    add_device(command)
