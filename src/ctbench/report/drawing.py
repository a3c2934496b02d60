"""What all figures share: an empty figure without a window, and how it is saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(f"matplotlib is not there ({error}): pip install 'ctbench[figures]'") from None
    return Figure(figsize=(width, height), layout="constrained")  # without a window


def save(figure: Figure, path: Path, title: str) -> None:
    """Write a figure, PNG or SVG by its suffix, under its title; the same figure gives the same bytes.

    Raises:
        ValueError: the suffix is of no known format.
    """
    import matplotlib

    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"{path} is neither a .png nor a .svg file: choose a name that ends in one of them")
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": title}):  # otherwise the names within an SVG are random
        figure.savefig(path, dpi=150, metadata={"Software": None} if path.suffix == ".png" else {"Date": None})
