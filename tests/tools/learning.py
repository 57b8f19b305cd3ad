"""Running `dnnjpeg learn-table`, on pictures for a tiny network."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS))

from tiny import classifier, pictures  # noqa: E402

from dnnjpeg.tools.cli import main  # noqa: E402

MODEL = f"{TESTS / 'tiny.py'}:classifier"
COUNT = 100


def learn(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["learn-table", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def report_of(table: Path) -> dict[str, Any]:
    return json.loads((table.with_suffix(".report") / "report.json").read_text())


def save_data(folder: Path) -> Path:
    """pictures.npy and labels.npy, which are what the tiny network says."""
    import torch

    some = pictures(COUNT)
    with torch.no_grad():
        logits = classifier()((torch.from_numpy(some).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
    np.save(folder / "pictures.npy", some)
    np.save(folder / "labels.npy", logits.argmax(1).numpy())
    return folder


def limited(data: Path, count: int) -> np.ndarray:
    """The pictures that --limit leaves."""
    return np.load(data / "pictures.npy")[np.sort(np.random.default_rng(0).permutation(COUNT)[:count])]
