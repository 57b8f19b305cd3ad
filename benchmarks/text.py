"""Text in pictures: a table learned for a text detector, judged by a recognizer that had no say.

    pip install 'dnnjpeg[onnx]' && pip install --no-deps rapidocr-onnxruntime
    apt-get install fontconfig fonts-dejavu fonts-liberation fonts-freefont-ttf fonts-urw-base35
    python benchmarks/text.py draw FOLDER       pages, and the detector with its settings
    python benchmarks/text.py learn FOLDER      tables/ocr.json, by dnnjpeg learn-table
    python benchmarks/text.py measure FOLDER    results/text.json, on held-out pages
    python benchmarks/text.py show

Pages are those of `pages.py`: even ones are learned from. Odd ones are held out, and have other fonts,
photographs and words. The detector is an ONNX file without gradients; its task is `dense`. The recognizer
reads lines cut out where they were drawn. The character error rate is the edit distance to the text, divided
by the characters. "detector asked": as `dnnjpeg encode --table ocr --network detector.onnx --keep price=X`
does; the recognizer has no say in that, either.
"""

import io
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from common import DNNJPEG, RESULTS, write
from PIL import Image

LEARNED, HELD_OUT = 200, 100  # pages
LINES = 3  # of a page that are read, the first ones
PART = 160, 224  # height and width of the part of a page that is learned from: there its text begins
TABLE = Path(__file__).parents[1] / "tables" / "ocr.json"
REFERENCE, AT = "pillow", (20, 50, 75)
ASKED = "dnnjpeg:ocr, detector asked"
# The qualities reach from the error of the reference at 20 to that at 75, and beyond.
CODECS: dict[str, tuple[float, ...]] = {
    REFERENCE: (10, 20, 35, 50, 62, 75, 85),
    "pillow,subsampling=4:4:4": (10, 20, 35, 50, 65, 80),
    "mozjpeg": (10, 20, 35, 50, 65, 80, 90),
    "jpegli": (15, 30, 45, 60, 72, 84),
    "webp": (5, 20, 35, 50, 65, 82),
    f"dnnjpeg:{TABLE}": (10, 20, 35, 50, 65, 80, 90),
    ASKED: (66, 70, 74, 78, 82, 86, 90, 94, 98),
}
SETTINGS = """\
preprocess: {size: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], fit: whole}
channels: bgr
task: dense
"""
SEARCH = ("--subsampling", "4:4:4", "--subsampling", "4:2:0", "--qualities", "15,30,45,60,80")


@click.group()
def main() -> None:
    """Text in pictures."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def draw(folder: Path) -> None:
    """Draw the pages to learn from, and copy the detector."""
    from pages import page
    from recognizer import model

    folder.mkdir(parents=True, exist_ok=True)
    parts = [page(2 * i).pixels[: PART[0], : PART[1]] for i in range(LEARNED)]
    np.save(folder / "learned.npy", np.stack(parts))
    shutil.copy(model("det"), folder / "detector.onnx")
    (folder / "detector.yaml").write_text(SETTINGS)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.argument("more", nargs=-1)
def learn(folder: Path, more: Sequence[str]) -> None:
    """Learn the table. MORE: further options of learn-table."""
    network = ("--network", folder / "detector.onnx", "--threads", "1")
    where = ("--data", folder / "learned.npy", "--cache", folder / "cache", "-o", folder / "ocr.json")
    subprocess.run([DNNJPEG, "learn-table", *network, *where, *SEARCH, *more], check=True)
    shutil.copy(folder / "ocr.json", TABLE)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--codec", "names", type=click.Choice(list(CODECS)), multiple=True, default=list(CODECS))
def measure(folder: Path, names: Sequence[str]) -> None:
    """Measure codecs on held-out pages. Results of others stay. What is read is kept in FOLDER."""
    from asked import asked_codec
    from pages import page
    from recognizer import Recognizer, characters

    from dnnjpeg.evaluate.codecs import load_codec
    from dnnjpeg.files.cache import Cache, key
    from dnnjpeg.networks.load import load_network

    cache, recognizer = Cache(folder / "cache"), Recognizer()
    pages = [page(2 * i + 1) for i in range(HELD_OUT)]
    pages = [replace(one, lines=one.lines[:LINES]) for one in pages]
    detector = load_network(str(folder / "detector.onnx"), threads=1)
    asked = asked_codec(ASKED, str(TABLE), detector, [one.pixels for one in pages])
    codecs = {name: asked if name == ASKED else load_codec(name) for name in names}

    def read(name: str, quality: float | None) -> dict[str, list[int]]:
        rows: list[tuple[int, int]] = []
        for number, one in enumerate(pages):
            place = key("text", number, LINES, "" if quality is None else codecs[name].key(quality))
            if not (kept := cache.load(place)):
                data, pixels = b"", one.pixels
                if quality is not None:
                    data = codecs[name].encode(one.pixels, quality)
                    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
                kept = {"row": np.array([len(data), recognizer.errors(pixels, one.lines)])}
                cache.save(place, kept)
            rows.append(tuple(kept["row"].tolist()))
        return {"bytes": [row[0] for row in rows], "errors": [row[1] for row in rows]}

    found: dict[str, Any] = {
        "pages": HELD_OUT,
        "characters": [characters(one.lines) for one in pages],
        "clean": read(REFERENCE, None)["errors"],
        "settings": [],
    }
    shown = {name: "dnnjpeg:ocr" if name.endswith("ocr.json") else name for name in names}
    if (RESULTS / "text.json").exists():
        old = json.loads((RESULTS / "text.json").read_text())
        if all(old[part] == found[part] for part in ("characters", "clean")):  # of the same pages
            found["settings"] = [one for one in old["settings"] if one["codec"] not in shown.values()]
    for level in range(max(map(len, CODECS.values()))):  # so that an early end has a part of each
        for name in names:
            if level < len(qualities := CODECS[name]):
                quality = sorted(qualities, key=lambda q: abs(q - 50))[level]
                found["settings"].append({"codec": shown[name], "quality": quality, **read(name, quality)})
                write("text", found)


@main.command()
def show() -> None:
    """Bytes at equal character error rate, against Pillow's default."""
    click.echo(as_markdown(json.loads((RESULTS / "text.json").read_text())))


def as_markdown(found: dict[str, Any]) -> str:
    """A table: the change of bytes from the reference at its error rates, with 95 % intervals."""
    from dnnjpeg.evaluate.curves import log_ratio, per_cent
    from dnnjpeg.evaluate.statistics import Estimate
    from dnnjpeg.evaluate.text import in_words, interval

    curves = {name: curve_of(found, name) for name in dict.fromkeys(s["codec"] for s in found["settings"])}
    reference = curves[REFERENCE]
    targets = {q: rate_of(found, REFERENCE, q) for q in AT}
    heads = [f"{100 * -targets[q][0]:.1f} % (quality {q})" for q in AT]
    lines = ["| bytes against Pillow 4:2:0, at a character error rate of | " + " | ".join(heads) + " |"]
    lines.append("|---|" + "---|" * len(AT))
    for name, curve in curves.items():
        if name == REFERENCE:
            continue
        cells = []
        for quality in AT:
            change = Estimate.of(per_cent(log_ratio(curve, reference, reference.within(targets[quality]))))
            numbers = {"value": change.value, "low": change.low, "high": change.high}
            known = {key: x if np.isfinite(x) else None for key, x in numbers.items()}
            cells.append(in_words(interval(known, 1)))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rate_of(found: dict[str, Any], codec: str, quality: float) -> Any:
    """Samples of minus the character error rate."""
    from dnnjpeg.evaluate.statistics import means

    for one in found["settings"]:
        if (one["codec"], one["quality"]) == (codec, quality):
            errors, count = means([one["errors"], found["characters"]]).T
            return -errors / count
    raise click.ClickException(f"{codec} was not measured at quality {quality}")


def curve_of(found: dict[str, Any], codec: str) -> Any:
    """Bytes and error rates of a codec."""
    from dnnjpeg.evaluate.curves import Curve
    from dnnjpeg.evaluate.statistics import means

    own = sorted((one for one in found["settings"] if one["codec"] == codec), key=lambda one: one["quality"])
    rates = [rate_of(found, codec, one["quality"]) for one in own]
    return Curve(means([one["bytes"] for one in own]), np.stack(rates, 1))


if __name__ == "__main__":
    main()
