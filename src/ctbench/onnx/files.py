"""ONNX files as models: unpacked, with their external data, sorted, and valid."""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ctbench.onnx.building import OnnxError

OLDEST_OPSET = 7  # the first opset in which shapes broadcast like in numpy
MAX_BYTES = 2 << 30  # of a file, unpacked: the limit of protocol buffers


def content_of(path: Path) -> bytes:
    """The bytes of a file, unpacked if its name ends in .gz.

    Raises:
        OnnxError: there is no such file, it is empty, or it is not a complete gzip file.
    """
    if not path.is_file():
        raise OnnxError("this is a directory, give a file" if path.is_dir() else "there is no such file")
    if path.stat().st_size == 0:
        raise OnnxError("the file is empty")
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            content = file.read(MAX_BYTES + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise OnnxError(f"not a complete gzip file ({error})") from None
    if not content or len(content) > MAX_BYTES:
        raise OnnxError("the file is empty" if not content else f"the file holds more than {MAX_BYTES >> 30} GiB")
    return content


def read_model(path: Path) -> onnx.ModelProto:
    """A valid ONNX model, with the weights that are stored in files next to it, and its nodes in order.

    Raises:
        OnnxError: the file is missing, damaged, not an ONNX file, or of an opset that is not supported.
    """
    try:
        model = onnx.load_model_from_string(content_of(path))
        onnx.load_external_data_for_model(model, str(path.parent))
        newest = onnx.defs.onnx_opset_version()
        for opset in model.opset_import:
            if opset.domain in ("", "ai.onnx") and not OLDEST_OPSET <= opset.version <= newest:
                raise OnnxError(
                    f"opset {opset.version} is not supported: export the network with {OLDEST_OPSET} to {newest}"
                )
        sort_nodes(model.graph)
        onnx.checker.check_model(model)
    except DecodeError:
        raise OnnxError("not an ONNX file, or a damaged one: it cannot be decoded") from None
    except (onnx.checker.ValidationError, OSError) as error:
        raise OnnxError(f"the file breaks the rules of ONNX: {' '.join(str(error).split())}") from None
    return model


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put nodes after the nodes that make their inputs; nodes in order stay where they are.

    Raises:
        OnnxError: nodes form a cycle.
    """
    makers = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    waiting = [{makers[name] for name in node.input if name in makers} for node in graph.node]
    if all(place > max(sources, default=-1) for place, sources in enumerate(waiting)):
        return
    readers: dict[int, list[int]] = {}
    for place, sources in enumerate(waiting):
        for source in sources:
            readers.setdefault(source, []).append(place)
    counts, order = [len(sources) for sources in waiting], list[int]()
    ready = [place for place, count in enumerate(counts) if not count][::-1]
    while ready:
        place = ready.pop()
        order.append(place)
        for reader in readers.get(place, []):
            counts[reader] -= 1
            if not counts[reader]:
                ready.append(reader)
    if len(order) < len(waiting):
        node = graph.node[next(place for place, count in enumerate(counts) if count)]
        raise OnnxError(f"node '{node.name}' ({node.op_type}) reads its own output, through other nodes")
    nodes = [onnx.NodeProto.FromString(graph.node[place].SerializeToString()) for place in order]
    del graph.node[:]
    graph.node.extend(nodes)


def counted(kinds: list[str]) -> str:
    """Kinds with the number of times that each occurs, the most frequent ones first."""
    return ", ".join(
        f"{kind} ({'once' if count == 1 else f'{count} times'})" for kind, count in Counter(kinds).most_common()
    )
