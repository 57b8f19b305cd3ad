"""What tables gain on small pictures: CIFAR-10, entropy-coded data only, as where tables are sent once.

    python benchmarks/cifar.py unpack $DNNJPEG_DATA/data/cifar10 cifar
    learn="dnnjpeg learn-table --data cifar/train.npy --headerless --bfloat16"
    $learn --network zoo.py:cifar_resnet20 --points 6 -o tables/cifar_resnet20.json
    $learn --network zoo.py:cifar_resnet56 --qualities 15,25,35,45,55,62,70,80,90 \
        -o tables/cifar_resnet56.json
    $learn --network zoo.py:cifar_resnet20 --method j4d --qualities 25,60 --subsampling 4:4:4 --steps 60 \
        -o j4d-cifar_resnet20.json
    dnnjpeg evaluate --network zoo.py:cifar_resnet20 --data cifar/test.npy --labels cifar/test_labels.npy \
        --headerless \
        --codec dnnjpeg:tables/cifar_resnet20.json,optimize=false@5,10,15,20,25,30,40,50,60,70,80,90 \
        --codec dnnjpeg:j4d-cifar_resnet20.json,optimize=false@15,22,30,45,58,70,85 \
        --codec pillow,subsampling=4:4:4@5,10,20,30,40,50,60,70,80,90 \
        --reference pillow@5,10,15,20,25,30,40,50,60,70,80,90,95 \
        -o benchmarks/results/cifar/cifar_resnet20.json

and the first two tables as cifar_resnet56 reads them, with fewer qualities. The same of training pictures,
with `--data cifar/train.npy --labels cifar/train_labels.npy --limit 1000`, to cifar_resnet20_train.json
there; J4D's table was not read in them, and is not in that of the site.
`python benchmarks/cifar.py` prints the table of the site: what top-1 gains at the scan bytes of a file of
Pillow's, at the quality where it gains most on training pictures, and scan bytes likewise, at its top-1.
"""

import json
import sys
from pathlib import Path

import numpy as np
from common import RESULTS
from PIL import Image

Change = tuple[float | None, float | None, float | None]  # with its interval; None is beyond what is known
Changes = dict[float, Change]  # by Pillow's quality


def main() -> None:
    """Print the table, or unpack the pictures."""
    if sys.argv[1:2] == ["unpack"]:
        unpack(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    print("| scan bytes, against Pillow's 4:2:0 | top-1 at equal bytes | bytes at equal top-1 |")
    print("|---|---:|---:|")
    for file in sorted((RESULTS / "cifar").glob("*_train.json")):
        learned, tested = read(file), read(file.with_name(file.name.replace("_train", "")))
        for row in (row for row in tested if row in learned):
            gain, cut = _best(learned[row][0], 1), _best(learned[row][1], -1)
            said = _say(tested[row][0], gain, 100, ""), _say(tested[row][1], cut, 1, " %")
            print(f"| {row} | {' | '.join(said)} |")


def read(report: Path) -> dict[str, tuple[Changes, Changes]]:
    """Changes of top-1 at equal bytes, and of bytes at equal top-1, by network and codec."""
    found = {}
    for row in json.loads(report.read_text())["comparisons"]:
        if row["metric"] == "top1":
            found[f"{row['network']}: {row['codec']}"] = tuple(
                {point["quality"]: tuple(point[what].values()) for point in row["points"]}
                for what in ("metric_change", "bytes_change")
            )
    return found


def _best(changes: Changes, sign: int) -> float | None:
    """The quality of the largest change of this sign, of those that are known with their interval."""
    known = {quality: change[0] for quality, change in changes.items() if None not in change}
    return max(known, key=lambda quality: sign * known[quality], default=None)


def _say(changes: Changes, quality: float | None, scale: float, unit: str) -> str:
    if quality is None:
        return "beyond"
    value, low, high = ("beyond" if one is None else f"{scale * one:+.1f}" for one in changes[quality])
    return f"{value}{unit} ({low}..{high}), quality {quality:g}"


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
