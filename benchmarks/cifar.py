"""What tables gain on small pictures: CIFAR-10, entropy-coded data only, as where tables are sent once.

    python benchmarks/cifar.py unpack $DNNJPEG_DATA/data/cifar10 cifar
    learn="dnnjpeg learn-table --data cifar/train.npy --headerless --bfloat16"
    $learn --model zoo.py:cifar_resnet20 --points 6 -o tables/cifar_resnet20.json
    $learn --model zoo.py:cifar_resnet56 --qualities 15,25,35,45,55,62,70,80,90 -o tables/cifar_resnet56.json
    $learn --model zoo.py:cifar_resnet20 --method j4d --qualities 25,60 --subsampling 4:4:4 --steps 60 \
        -o j4d-cifar_resnet20.json
    dnnjpeg evaluate --model zoo.py:cifar_resnet20 --data cifar/test.npy --labels cifar/test_labels.npy \
        --headerless \
        --codec dnnjpeg:tables/cifar_resnet20.json,optimize=false@5,10,15,20,25,30,40,50,60,70,80,90 \
        --codec dnnjpeg:j4d-cifar_resnet20.json,optimize=false@15,22,30,45,58,70,85 \
        --codec pillow,subsampling=4:4:4@5,10,20,30,40,50,60,70,80,90 \
        --reference pillow@5,10,15,20,25,30,40,50,60,70,80,90,95 \
        -o benchmarks/results/cifar/cifar_resnet20.json

and the first two tables as cifar_resnet56 reads them, with fewer qualities.
`python benchmarks/cifar.py` prints the README's table: the largest gain of top-1 at the scan bytes of a file
of Pillow's, and the largest cut of scan bytes at its top-1.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS
from PIL import Image


def main() -> None:
    """Print the table, or unpack the pictures."""
    if sys.argv[1:2] == ["unpack"]:
        unpack(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    print("| scan bytes, against Pillow's 4:2:0 | top-1 at equal bytes | bytes at equal top-1 |")
    print("|---|---:|---:|")
    for file in sorted((RESULTS / "cifar").glob("*.json")):
        for row in json.loads(file.read_text())["comparisons"]:
            if row["metric"] == "top1":
                print(
                    f"| {row['network']}: {row['codec']} | {_gain(row['points'])} | {_cut(row['points'])} |"
                )


def _gain(points: list[dict[str, Any]]) -> str:
    known = [point for point in points if point["metric_change"]["value"] is not None]
    if not known:
        return "beyond"
    best = max(known, key=lambda point: point["metric_change"]["value"])
    value, low, high = (100 * best["metric_change"][key] for key in ("value", "low", "high"))
    return f"{value:+.1f} ({low:+.1f}..{high:+.1f}), quality {best['quality']:g}"


def _cut(points: list[dict[str, Any]]) -> str:
    known = [point for point in points if None not in point["bytes_change"].values()]
    if not known:
        return "beyond"
    best = min(known, key=lambda point: point["bytes_change"]["value"])
    value, low, high = (best["bytes_change"][key] for key in ("value", "low", "high"))
    return f"{value:+.1f} % ({low:+.0f}..{high:+.0f}), quality {best['quality']:g}"


def unpack(source: Path, target: Path) -> None:
    """Write train.npy, test.npy and their labels from PNG sprites, a row of which is a picture."""
    target.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        sprites = sorted(source.glob(f"{part}_*.png"))
        pictures = np.concatenate([np.asarray(Image.open(file)).reshape(-1, 32, 32, 3) for file in sprites])
        np.save(target / f"{part}.npy", pictures)
        np.save(target / f"{part}_labels.npy", np.load(source / f"{part}_labels.npy")[: len(pictures)])


if __name__ == "__main__":
    main()
