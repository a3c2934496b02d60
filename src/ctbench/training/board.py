"""What TensorBoard shows of a run: each metric as a scalar, an epoch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def board(folder: Path | None, *, done: int) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A function that writes an epoch's metrics for TensorBoard.

    Args:
        folder: where the event files go; None writes nothing.
        done: the epochs that are done; what an earlier process has written of later ones is taken back.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    if folder is None:
        yield lambda metrics: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"TensorBoard is not there ({error}): pip install 'ctbench[tensorboard]', or train without it"
        ) from None

    def write(metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name != "epoch":
                writer.add_scalar(name, value, int(metrics["epoch"]))
        writer.flush()

    with SummaryWriter(str(folder), purge_step=done + 1) as writer:
        yield write
