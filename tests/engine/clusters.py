"""A real Ray cluster of two nodes on this machine, each of one CPU, with an authentication token of its own."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
START = ["-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--disable-usage-stats", "--block"]
# with given ports a node does not wait for those that its agents choose: on a busy machine it would give up
AGENTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port", "metrics-export-port")


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs."""

    folder: Path
    session: Path  # the folder of Ray's logs and sockets, whose paths must be short
    head: subprocess.Popen[bytes]
    port: int
    client: int  # the port of the Ray Client server
    environment: dict[str, str]

    @property
    def address(self) -> str:
        """The address of the head, for drivers on its nodes. RAY_ADDRESS has it for all drivers."""
        return f"127.0.0.1:{self.port}"

    @property
    def client_address(self) -> str:
        """The address of the Ray Client server, for drivers anywhere."""
        return f"ray://127.0.0.1:{self.client}"

    @contextmanager
    def node(self) -> Iterator[subprocess.Popen[bytes]]:
        """One more node."""
        log = self.folder / f"node-{time.time_ns()}.log"
        with _started([f"--address=127.0.0.1:{self.port}"], self.environment, log) as process:
            yield process

    @contextmanager
    def driver(self, *arguments: object) -> Iterator[subprocess.Popen[str]]:
        """A Python process that may use the cluster; it is killed at the end of the context."""
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=self.environment | {"RAY_ADDRESS": self.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """The head of a cluster."""
    (folder / "token").write_text(secrets.token_hex(32))
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT))),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
        # on a busy machine a node needs minutes to start, and to answer
        "RAY_raylet_start_wait_time_s": "300",
        "RAY_agent_register_timeout_ms": "300000",
        "RAY_worker_register_timeout_seconds": "300",
        "RAY_health_check_timeout_ms": "60000",
        "RAY_worker_niceness": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    port, client = _free_ports(2)
    session = Path(tempfile.mkdtemp(prefix="ct"))
    options = ["--head", f"--port={port}", f"--ray-client-server-port={client}", f"--temp-dir={session}"]
    with _started([*options, "--include-dashboard=false"], environment, folder / "head.log") as head:
        yield Cluster(folder, session, head, port, client, environment)


@contextmanager
def _started(options: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A node that has started; it and all its processes are killed at the end."""
    agents = [f"--{name}={port}" for name, port in zip(AGENTS, _free_ports(len(AGENTS)), strict=True)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *START, *agents, *options],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        while b"block forever" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a node with all its processes, which cannot say goodbye to anyone."""
    for number in of_session(process.pid):
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended with another one
    process.wait()


def of_session(leader: int) -> list[int]:
    """The processes of a session: all that its leader has started, even if those between have ended."""
    members = list[int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            session = int(path.read_text().rpartition(")")[2].split()[3])
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if session == leader:
            members.append(int(path.parent.name))
    return members


def _free_ports(number: int) -> list[int]:
    """Free ports outside the range of Ray's workers, 10002 to 19999."""
    ports = list[int]()
    while len(ports) < number:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            if port > 20000 and port not in ports:
                ports.append(port)
    return ports
