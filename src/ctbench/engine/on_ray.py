"""A Ray cluster: an existing one, or one on this machine (`pip install ray`).

A worker is an actor with its share of CPUs and GPUs. The driver asks it for one result after the other: so workers send
nothing that nobody waits for, and the driver's memory stays flat. Ray ends the actors when the driver ends.
"""

from __future__ import annotations

import math
import os
import socket
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from ctbench.engine.base import Kept, Task, digest_of
from ctbench.engine.crew import Crew, Employer, Worker, WorkerDiedError
from ctbench.engine.serving import Kind, Message

CLIENT = "ray://"
CONNECT = 5.0  # seconds in which the address of a cluster must answer
SLOW = "Initialization failure"  # what Ray Client's server says if its process for a driver did not start in time
INHERITED = ("CTBENCH_DATA", "OMP_WAIT_POLICY")  # variables of the environment that workers get from the driver


@dataclass(frozen=True, kw_only=True)
class Ray(Employer):
    """A Ray cluster.

    Args:
        address: "ray://HOST:PORT" of a cluster's Ray Client server, or "HOST:PORT" of its head, if this machine is one
            of its nodes. None takes that of RAY_ADDRESS, or the cluster of this machine; if there is none, one starts
            on this machine, and ends with this process.
        workers: the number of workers; None for all that the cluster has room for when the run begins.
        cpus: CPUs, and threads of torch, of each worker.
        gpus: GPUs of each worker, which may be a share, e.g. 0.5; None for one with device="cuda", otherwise none.
        device: the device of networks in the workers; None leaves them where they are.
        patience: seconds in which one worker must start if none works.

    Raises:
        ValueError: a number is not positive.
    """

    address: str | None = None
    workers: int | None = None
    cpus: float = 1
    gpus: float | None = None
    device: str | None = None
    patience: float = 120.0

    def __post_init__(self) -> None:
        if self.workers is not None and not (isinstance(self.workers, int) and self.workers >= 1):
            raise ValueError(f"workers is {self.workers!r}: give a whole number of workers, 1 or more, or None")
        for name in ("cpus", "gpus", "patience"):
            number = getattr(self, name)
            if number is not None and not 0 < number < math.inf:
                raise ValueError(f"{name} is {number!r}: give a number > 0")

    @property
    def home(self) -> str | None:
        return None if self.device is None else "cpu"

    @property
    def resources(self) -> dict[str, float]:
        """What each worker takes."""
        gpus = self.gpus or float(self.device == "cuda")
        return {"CPU": self.cpus} | ({"GPU": gpus} if gpus else {})

    def size(self) -> int:
        ray = connected(self.address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        room = sum(min(int(node.get(name, 0) / amount) for name, amount in self.resources.items()) for node in nodes)
        if room < (self.workers or 1):
            wanted = _listed(self.resources)
            there = "; ".join(_listed({name: node.get(name, 0) for name in ("CPU", "GPU")}) for node in nodes)
            raise ValueError(
                f"the Ray cluster has room for {room} workers of {wanted} each, not for {self.workers or 1}: its nodes "
                f"have {there}; ask for less, or add nodes"
            )
        return self.workers or room

    def crew(self, size: int) -> Crew[_Actor]:
        return _Actors(connected(self.address), size, self)


def _listed(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in resources.items())


def connected(address: str | None) -> ModuleType:
    """Ray, connected to a cluster.

    Raises:
        ValueError: Ray is not installed, or this process is connected to another cluster.
        ConnectionError: nothing answers at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # CPU workers may keep their environment
    try:
        import ray
    except ImportError as error:
        raise ValueError(f"ray is not there ({error}): pip install ray, or use --on local") from None
    if ray.is_initialized():
        return ray
    address = address or os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says the same
            if address is not None:
                _check_listening(address)
                _init_at(ray, address, quiet)
            else:
                _init_near(ray, quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = "of this machine" if address is None else f"at {address}"
        first, _, rest = str(error).strip().partition("\n")
        reason = f"{first} {rest.strip().partition(chr(10))[0]}".strip() if first.endswith(":") else first
        raise ConnectionError(
            f"no connection to a Ray cluster {where} ({reason}): start one with `ray start --head`, give its address, "
            f"and if it has an authentication token, the same one (RAY_AUTH_TOKEN_PATH)"
        ) from None
    return ray


def _init_at(ray: ModuleType, address: str, quiet: Mapping[str, Any]) -> None:
    """Connect to an address. A busy Ray Client server may start its process for this driver too late: try again."""
    for last in (False, False, True):
        try:
            ray.init(address, **quiet)
            return
        except ConnectionError as error:
            if last or SLOW not in str(error):
                raise


def _init_near(ray: ModuleType, quiet: Mapping[str, Any]) -> None:
    """Connect to the cluster of this machine; start one if there is none."""
    try:
        ray.init("auto", **quiet)
    except ConnectionError:
        ray.init("local", include_dashboard=False, **quiet)


def _check_listening(address: str) -> None:
    """Raise ConnectionError if nothing listens at an address: Ray itself would try for half a minute."""
    place = urlsplit(address if "//" in address else f"//{address}")
    if place.hostname is None or place.port is None:
        raise ValueError(f"{address!r} is not an address: give ray://HOST:PORT")
    with socket.create_connection((place.hostname, place.port), timeout=CONNECT):
        pass


class _Actors(Crew["_Actor"]):
    """Actors of a cluster."""

    def __init__(self, ray: ModuleType, size: int, engine: Ray) -> None:
        super().__init__(size)
        self.ray, self.engine = ray, engine
        self.contents: dict[Kept, tuple[str, Any]] = {}  # digests and references of kept values
        remote = ray.remote(_member())
        self.remote = remote.options(
            num_cpus=engine.cpus, num_gpus=engine.resources.get("GPU", 0), max_restarts=0, max_task_retries=0
        )

    def hire(self) -> _Actor:
        return _Actor(self)

    def wait(self, workers: list[_Actor]) -> list[_Actor]:
        works = any(worker.task for worker in workers)
        references = {worker.reference: worker for worker in workers}
        ready, _ = self.ray.wait(list(references), num_returns=1, timeout=None if works else self.engine.patience)
        if not ready:
            free = self.ray.available_resources()
            raise ValueError(
                f"no worker of {_listed(self.engine.resources)} could start on the Ray cluster within "
                f"{self.engine.patience:g} seconds: it has {free.get('CPU', 0):g} CPU and {free.get('GPU', 0):g} GPU "
                f"free; wait for other jobs, or ask for less"
            )
        ready, _ = self.ray.wait(list(references), num_returns=len(references), timeout=0)
        return [references[reference] for reference in ready]

    def content(self, task: Task) -> tuple[str, list[Any]] | None:
        """The digest of the kept value of a task, and a reference to it in Ray's store, where it is put once."""
        if task.kept is None:
            return None
        if task.kept not in self.contents:
            content = task.kept.saved(self.ray.cloudpickle)
            self.contents[task.kept] = digest_of(content), self.ray.put(content)
        digest, reference = self.contents[task.kept]
        return digest, [reference]  # in a list, so that Ray brings it only when it is needed


class _Actor(Worker):
    """An actor, and the reference to what it says next."""

    def __init__(self, crew: _Actors) -> None:
        self.crew, self.ray = crew, crew.ray
        self.handle = crew.remote.remote()
        engine = crew.engine
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        paths = [path or str(Path.cwd()) for path in sys.path]
        self.reference = self.handle.begin.remote(version("ctbench"), paths, environment, engine.device, engine.cpus)

    def give(self, task: Task) -> None:
        arguments, content = task.current(), self.crew.content(task)
        try:
            self.reference = self.handle.take.remote(task.function, arguments, content)
        except TypeError as error:  # of a value that cannot be pickled
            raise ValueError(f"{task.key} cannot be sent to workers ({str(error).partition(chr(10))[0]})") from None

    def take(self) -> Message:
        try:
            kind, content = self.ray.get(self.reference)
        except self.ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            reason = f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}"
            if not self.ready:
                raise WorkerDiedError(reason) from None
            return Kind.FAILED, reason
        except self.ray.exceptions.RayError as error:
            raise WorkerDiedError(str(error).strip().partition("\n")[0]) from None
        if kind == "refused":
            raise ValueError(content)
        message = Kind(kind), content
        if message[0] in (Kind.RESULT, Kind.NEEDS):
            self.reference = self.handle.go_on.remote()
        return message

    def end(self) -> None:
        self.ray.kill(self.handle)


def _member() -> type:
    """The class of actors. It is made in a function so that Ray sends it by value, to workers of any version."""

    class Member:
        def begin(
            self, wanted: str, paths: list[str], environment: dict[str, str], device: str | None, cpus: float
        ) -> tuple[str, Any]:
            """Get ready; say so, or why not."""
            import os
            import sys
            from importlib.metadata import PackageNotFoundError, version
            from platform import node

            os.environ.update(environment)
            sys.path += [path for path in paths if path not in sys.path]
            try:
                installed = version("ctbench")
            except PackageNotFoundError:
                installed = "not installed"
            if installed != wanted:
                return "refused", (
                    f"ctbench is {installed} on the node {node()} of the Ray cluster, and {wanted} here: install the "
                    f"same version on all nodes"
                )
            import torch

            from ctbench.engine.serving import Desk
            from ctbench.memory import keep_freed_memory

            torch.set_num_threads(max(1, int(cpus)))
            keep_freed_memory()
            self.desk = Desk(device)
            return "ready", None

        def take(self, function: Any, arguments: Any, content: tuple[str, list[Any]] | None) -> tuple[str, Any]:
            """Begin a task; say what comes of it first."""
            import ray

            digest, references = content or (None, [])
            self.messages = self.desk.perform(function, arguments, digest, lambda: ray.get(references[0]))
            return self.go_on()

        def go_on(self) -> tuple[str, Any]:
            """Say what comes next of the task."""
            kind, content = next(self.messages)
            return kind.value, content

    return Member
