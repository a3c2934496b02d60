"""Tasks for engines: they count, die, fail, or wait for a file."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from torch import Tensor


def count(number: int) -> Iterator[int]:
    yield from range(number)


def added(kept: Tensor, number: float, pause: float = 0.0) -> Iterator[tuple[Tensor, int, int]]:
    """The sum, the process, and the address of the kept value: the same for all tasks of a process that keeps it."""
    time.sleep(pause)
    yield kept + number, os.getpid(), kept.data_ptr()


def fatal(place: str, times: int) -> Iterator[str]:
    """Kill the worker of this task this many times."""
    yield "begun"
    with Path(place).open("a") as file:
        file.write("x")
    if Path(place).stat().st_size <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    yield "ended"


def wrong() -> Iterator[str]:
    yield "begun"
    raise RuntimeError("out of luck")


def waiting(place: str) -> Iterator[int]:
    """Tell the process, and wait for a file."""
    yield os.getpid()
    while not Path(place).exists():
        time.sleep(0.02)
    yield 0


def surroundings() -> Iterator[tuple[int, str, str]]:
    """The process, its accelerator and the threads of torch; a moment later, so that no worker takes all such tasks."""
    time.sleep(0.3)
    yield os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES", ""), os.environ["OMP_NUM_THREADS"]


def unsendable() -> Iterator[object]:
    yield lambda: None


def printing() -> Iterator[int]:
    print("hello", flush=True)
    yield 1


class Unloadable:
    """It can be pickled, but not loaded."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return no_room, ()


def no_room() -> None:
    raise OverflowError("no room")
