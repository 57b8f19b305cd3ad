"""EfficientNet-Lite0 as an ONNX model, from the weights that a Python package carries, without torch.

The network: Tan and Le, arXiv:1905.11946. Its Lite form has ReLU6, and no squeeze-and-excitation.
"""

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[Any]]

MEAN, STD = 127 / 255, 128 / 255
_STAGES = (1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)  # blocks, and the stride of the first
_EPSILON = 1e-3  # of batch normalization
_OPSET, _IR_VERSION = 17, 9  # old enough for every ONNX Runtime since 1.16


def read_weights(path: Path) -> Weights:
    """Read a state dict that torch has written in its older form: pickles, then the numbers of each storage.

    Raises OSError if the file cannot be read. Raises ValueError if it is another kind of file.
    """
    with path.open("rb") as file:
        try:
            for _ in ("magic number", "version", "system"):
                _Unpickler(file).load()
            unpickler = _Unpickler(file)
            weights: Weights = unpickler.load()
            for name in _Unpickler(file).load():
                numbers = unpickler.storages[name]
                if int.from_bytes(file.read(8), "little") != numbers.size:
                    raise ValueError("a storage has another size")
                data = file.read(numbers.nbytes)
                if len(data) != numbers.nbytes:
                    raise ValueError("it ends too early")
                numbers[:] = np.frombuffer(data, numbers.dtype)
        except OSError:
            raise
        except Exception as error:  # pickle raises many kinds
            raise ValueError(f"{path} is not a file of weights ({error})") from None
    return weights


class _Unpickler(pickle.Unpickler):
    """Makes arrays in place of torch's tensors, and nothing that is not in a state dict."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, NDArray[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        _, dtype, name, _, size, _ = pid
        return self.storages.setdefault(name, np.zeros(size, dtype))


def _tensor(
    storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> NDArray[Any]:
    """A view of a storage. numpy refuses one that reaches beyond it."""
    size = storage.itemsize
    return np.ndarray(shape, storage.dtype, storage.data, offset * size, [size * step for step in strides])


_KNOWN: dict[str, Any] = {
    "collections.OrderedDict": OrderedDict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.LongStorage": np.dtype("<i8"),
}


def onnx_model(weights: Weights, pictures: int, size: int) -> Any:
    """The network as an onnx.ModelProto.

    Its input is float32 [pictures, 3, size, size], (pixels / 255 - MEAN) / STD of RGB. Its output is float32
    [pictures, 1000], logits.

    Raises ImportError without the package onnx. Raises ValueError if the weights are of another network.
    """
    graph = _Graph(weights)
    try:
        x = graph.convolution("input", "_conv_stem", "_bn0", stride=2)
        for place, stride in enumerate(s if i == 0 else 1 for n, s in _STAGES for i in range(n)):
            x = graph.block(x, f"_blocks.{place}.", stride)
        x = graph.convolution(x, "_conv_head", "_bn1")
        x = graph.node("Flatten", graph.node("GlobalAveragePool", x))
        logits = graph.node("Gemm", x, graph.array("_fc.weight"), graph.array("_fc.bias"), transB=1)
    except KeyError as error:
        raise ValueError(f"the weights are not those of EfficientNet-Lite0: {error} is missing") from None
    return graph.model([pictures, 3, size, size], logits, [pictures, weights["_fc.bias"].size])


class _Graph:
    """Nodes and arrays of a model, as they are added. Values are known by their names."""

    def __init__(self, weights: Weights) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._from_array = helper, numpy_helper.from_array
        self._weights = weights
        self._nodes: list[Any] = []
        self._arrays: dict[str, Any] = {}

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(self._helper.make_node(kind, inputs, [name], **attributes))
        return name

    def array(self, name: str, values: NDArray[Any] | None = None) -> str:
        """An array of the model: one of the weights, or these values."""
        array = self._weights[name] if values is None else values
        self._arrays[name] = self._from_array(np.asarray(array, np.float32), name)
        return name

    def convolution(self, x: str, name: str, norm: str, *, stride: int = 1, clipped: bool = True) -> str:
        """A convolution with TensorFlow's SAME padding, its batch normalization folded into it, and ReLU6."""
        kernel = self._weights[f"{name}.weight"]
        gamma, beta, mean, variance = (
            self._weights[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + _EPSILON)
        x = self.node(
            "Conv",
            x,
            self.array(f"{name}.weight", kernel * scale[:, None, None, None]),
            self.array(f"{name}.bias", beta - mean * scale),
            strides=[stride, stride],
            group=len(kernel) if "depthwise" in name else 1,
            auto_pad="SAME_UPPER",
        )
        if not clipped:
            return x
        return self.node("Clip", x, self.array("0", np.array(0)), self.array("6", np.array(6)))

    def block(self, before: str, name: str, stride: int) -> str:
        """An inverted residual: wider, depthwise, narrower."""
        x, expansion = before, self._weights.get(f"{name}_expand_conv.weight")
        if expansion is not None:
            x = self.convolution(x, f"{name}_expand_conv", f"{name}_bn0")
        x = self.convolution(x, f"{name}_depthwise_conv", f"{name}_bn1", stride=stride)
        x = self.convolution(x, f"{name}_project_conv", f"{name}_bn2", clipped=False)
        narrow = len(self._weights[f"{name}_project_conv.weight"])
        has_shortcut = stride == 1 and expansion is not None and expansion.shape[1] == narrow
        return self.node("Add", x, before) if has_shortcut else x

    def model(self, shape: list[int], output: str, output_shape: list[int]) -> Any:
        make, floats = self._helper, 1  # TensorProto.FLOAT
        graph = make.make_graph(
            self._nodes,
            "EfficientNet-Lite0",
            [make.make_tensor_value_info("input", floats, shape)],
            [make.make_tensor_value_info(output, floats, output_shape)],
            list(self._arrays.values()),
        )
        return make.make_model(graph, opset_imports=[make.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
