"""The text detector and the recognizer of rapidocr-onnxruntime.

pip install rapidocr-onnxruntime
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pages import Line, cut

_HEIGHT, _BATCH = 48, 8


def model(name: str) -> Path:
    """The ONNX file of a model, "det" or "rec"."""
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is None or found.origin is None:
        raise SystemExit("no models: pip install --no-deps rapidocr-onnxruntime")
    return Path(found.origin).parent / "models" / f"ch_PP-OCRv4_{name}_infer.onnx"


class Recognizer:
    """Reads lines of text."""

    def __init__(self, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(model("rec")), options)
        own = self._session.get_modelmeta().custom_metadata_map["character"]
        self._characters = ["", *own.splitlines(), " "]

    def errors(self, pixels: NDArray[np.uint8], lines: Sequence[Line]) -> int:
        """Edit distance between what is read in a picture and its text, without spaces, summed over lines."""
        found = self.read([cut(pixels, line, _HEIGHT) for line in lines])
        pairs = zip(found, lines, strict=True)
        return sum(distance(*(text.replace(" ", "") for text in (one, line.text))) for one, line in pairs)

    def read(self, cuts: Sequence[NDArray[np.uint8]]) -> list[str]:
        """The texts of lines, uint8 48 x width x 3 each."""
        texts = [""] * len(cuts)
        order = sorted(range(len(cuts)), key=lambda i: cuts[i].shape[1])
        for start in range(0, len(order), _BATCH):
            some = order[start : start + _BATCH]
            width = max(cuts[i].shape[1] for i in some)
            batch = np.zeros((len(some), 3, _HEIGHT, width), np.float32)
            for row, i in enumerate(some):
                batch[row, :, :, : cuts[i].shape[1]] = (cuts[i][..., ::-1] / 127.5 - 1).transpose(2, 0, 1)
            (chances,) = self._session.run(None, {"x": batch})
            for i, best in zip(some, chances.argmax(2), strict=True):
                kept = best[np.r_[True, best[1:] != best[:-1]]]
                texts[i] = "".join(self._characters[k] for k in kept)
        return texts


def characters(lines: Sequence[Line]) -> int:
    """Characters of the lines, without spaces."""
    return sum(len(line.text.replace(" ", "")) for line in lines)


def distance(one: str, other: str) -> int:
    """Levenshtein's edit distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]
