"""TensorBoard: each metric of a run as a scalar, epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def board(folder: Path | None, *, done: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A context with a function that writes the metrics of an epoch for TensorBoard.

    Args:
        folder: the folder of the event files; None writes nothing.
        done: the number of finished epochs; metrics that an earlier process wrote for later epochs are removed.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    if folder is None:
        yield lambda metrics: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(f"TensorBoard is not there ({error}): pip install tensorboard, or train without it") from None

    def write(metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name != "epoch":
                writer.add_scalar(name, value, int(metrics["epoch"]))
        writer.flush()

    with SummaryWriter(str(folder), purge_step=done + 1) as writer:
        yield write
