"""The reader of adaptive="read": a small classifier that says how hard each picture is to read.

It is an ONNX file that ONNX Runtime runs, without torch. `dnnjpeg.networks.export` makes it of a network.
"""

import io
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dnnjpeg.files.view import upright
from dnnjpeg.networks.preprocess import Preprocess

ENTRY = "dnnjpeg"  # of the file's metadata: JSON with `name`, `digest` and `preprocess`
PICTURES = 2  # that it reads at a time: the original and the coarse file


class Reader:
    """A classifier in an ONNX file. Several threads may use it at the same time."""

    def __init__(self, path: Path) -> None:
        """Load a reader.

        Raises OSError if the file cannot be read. Raises ValueError if it is not a reader, or if ONNX Runtime
        is missing.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ValueError("adaptive='read' needs ONNX Runtime: pip install 'dnnjpeg[reader]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several pictures are encoded at a time
        options.log_severity_level = 4
        data = path.read_bytes()
        try:
            self._session: Any = onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"])
            told = json.loads(self._session.get_modelmeta().custom_metadata_map[ENTRY])
            self.name, self.digest = str(told["name"]), str(told["digest"])
            self.preprocess = Preprocess.of(told["preprocess"])
        except Exception as error:  # onnxruntime raises many kinds
            raise ValueError(
                f"{path} is not a reader ({type(error).__name__}): make one with `dnnjpeg reader NETWORK`"
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


def reader_file() -> Path:
    """DNNJPEG_READER if it is set, else reader.onnx in the user's data folder."""
    if file := os.environ.get("DNNJPEG_READER"):
        return Path(file).expanduser()
    import platformdirs

    return platformdirs.user_data_path("dnnjpeg") / "reader.onnx"


def installed_reader() -> Reader:
    """The reader in `reader_file`. It is loaded once, and again after the file has changed.

    Raises ValueError if there is none.
    """
    path = reader_file()
    try:
        return _load(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise ValueError(
            f"adaptive='read' needs a reader, and no reader is in {path} ({error.strerror}): make one with "
            "`dnnjpeg reader NETWORK`"
        ) from None


@lru_cache(maxsize=2)
def _load(path: Path, changed: int) -> Reader:
    return Reader(path)
