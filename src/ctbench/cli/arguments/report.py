"""The arguments of `ctbench report`."""

from __future__ import annotations

from pathlib import Path

from ctbench.cli.options import Commands, add_data, add_data_from


def add_to(commands: Commands) -> None:
    command = commands.add_parser(
        "report",
        help="write pages about runs, packs and studies: a leaderboard, curves, agreements, a page for each",
        description="Write static pages about runs, packs and studies into a folder. A browser opens index.html from "
        "the file: no server and no network are needed.",
    )
    command.add_argument(
        "subjects", nargs="+", metavar="RUN|PACK|STUDY", help="run folders, packs (.zip), studies, or zoo:NAME"
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("report"),
        metavar="DIR",
        help="the folder of the pages, empty or with an earlier report (default: %(default)s)",
    )
    command.add_argument("--title", default="Certified training", metavar="T", help="the title (default: %(default)s)")
    command.add_argument("--no-images", action="store_true", help="show no test images; this needs no data")
    command.add_argument(
        "--no-samples", action="store_true", help="write no table of all samples of a certification, 70 bytes each"
    )
    add_data(command)
    add_data_from(command)
