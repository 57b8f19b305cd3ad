"""The pictures that the shipped tables were learned from: files as users have them, and squares.

    python benchmarks/mixed.py mixed      write them into the folder mixed

Of $DNNJPEG_DATA/data: files of about 500 x 375 from full/learn, and squares from imagenet/learn. Every other
square is saved once more as Pillow would, quality 95 and 4:2:0, for most JPEG files are subsampled. None has
the class of a picture of full/val, and no square that of a file.
"""

import os
from pathlib import Path

import click
from PIL import Image


def evenly(paths: list[Path], count: int) -> list[Path]:
    """So many of them, or all where there are fewer."""
    count = min(count, len(paths))
    return [paths[i * len(paths) // count] for i in range(count)]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--count", type=click.IntRange(1), default=160, show_default=True, help="Of each kind.")
def main(folder: Path, count: int) -> None:
    """Write files and squares into FOLDER."""
    root = Path(os.environ.get("DNNJPEG_DATA", ".")) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    judged = {path.stem for path in (root / "full/val").iterdir()}
    stored = sorted((root / "full/learn").iterdir())
    taken = judged | {path.stem for path in stored}
    squares = [path for path in sorted((root / "imagenet/learn").iterdir()) if path.stem not in taken]
    for path in evenly(stored, count):
        (folder / f"file_{path.name}").write_bytes(path.read_bytes())
    for number, path in enumerate(evenly(squares, count)):
        to = folder / f"square_{path.name}"
        if number % 2:
            Image.open(path).convert("RGB").save(to, quality=95, subsampling="4:2:0")
        else:
            to.write_bytes(path.read_bytes())


if __name__ == "__main__":
    main()
