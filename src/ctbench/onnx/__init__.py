"""Reading networks from ONNX files, and writing them.

model = load_onnx("network.onnx")      # a torch module: bounds(model, x, ...), trace(model, model.input_shape)
save_onnx(model, "copy.onnx", model.input_shape)
"""

from ctbench.onnx.building import OnnxError, OnnxNetwork
from ctbench.onnx.reading import load_onnx
from ctbench.onnx.replaying import can_replay, replay
from ctbench.onnx.writing import NodeWriter, node_of, save_onnx

__all__ = ["NodeWriter", "OnnxError", "OnnxNetwork", "can_replay", "load_onnx", "node_of", "replay", "save_onnx"]
