"""Transcoding beside decoding and encoding: speed in one thread, folders, and bytes for what is read.

    python benchmarks/transcode.py speed     the web photographs and full/val of $DNNJPEG_DATA/data
    python benchmarks/transcode.py stages    the same files, stage by stage
    python benchmarks/transcode.py folder    the same files ten times, by `dnnjpeg encode --jobs 2`
    python benchmarks/transcode.py worth     100 pictures of full/learn, read by mobilenet_v2

speed: functions take turns, file by file; a file counts with its fastest turn, in seconds of its thread. Both
encoders make files of the standard table. libjpeg-turbo's own reading of coefficients is
`jpeg_read_coefficients` of the library that Pillow brings, called from Python, on bytes in memory.
stages: each stage by itself, with the whole picture in planes between them, so that their sum is more than
transcoding takes; and how many times as fast transcoding would be, beside the two other ways, if all but
decoding were free. For sequential files.
folder: the pictures a second of the whole command, against that with --pixels, and, with --before, against an
older version. They take turns.
worth: the bytes of files made from the source's coefficients against those made from its decoded pixels, at
equal mean divergence from what the network reads in the source. Sources are the pictures saved by Pillow. The
curve of the pixels is straight between two qualities in the logarithms. Intervals are of 95 %, by drawing the
pictures again.
"""

import ctypes
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import PIL
from common import DNNJPEG, RESULTS, run, write
from PIL import Image

from dnnjpeg import encode, read_coefficients, transcode
from dnnjpeg.codec.plane_rows import requantized
from dnnjpeg.codec.prepare import operating_point
from dnnjpeg.codec.transcoding import prepared_transcoding
from dnnjpeg.options import DEFAULTS
from dnnjpeg.table.library import standard_table
from dnnjpeg.transcoder import Decoded

QUALITY = 75
FOLDERS = ("photos/web", "full/val")
COPIES = 10  # of a folder's files, so that starting the command does not count

# by quality and subsampling of the source: the qualities asked
SOURCES = {
    (75, "4:2:0"): (35, 50, 65),
    (85, "4:2:0"): (35, 50, 75),
    (95, "4:2:0"): (35, 50, 75),
    (95, "4:4:4"): (35, 50, 75),
}
CURVE = (20, 28, 36, 44, 52, 60, 67, 73, 78, 83)
DRAWS = 1000


def _paths(folder: str, count: int | None) -> list[Path]:
    root = Path(os.environ["DNNJPEG_DATA"]) / "data" / folder
    return [path for path in sorted(root.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg")][:count]


def _pillow(data: bytes) -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()


def _ours(data: bytes, quality: int = QUALITY, table: str = "standard") -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return encode(image, table, quality)


def _decode(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as image:
        image.load()


def libjpegs_reading() -> Callable[[bytes], None]:
    """Header and coefficients of bytes in memory, by the libjpeg-turbo in Pillow's wheel."""
    (path,) = (Path(PIL.__file__).parent.parent / "pillow.libs").glob("libjpeg*")
    library = ctypes.CDLL(str(path))
    library.jpeg_std_error.restype = ctypes.c_void_p
    version, size = 62, ctypes.c_size_t(632)  # of the interface, and of a jpeg_decompress_struct in it

    def read(data: bytes) -> None:
        info, errors = (ctypes.create_string_buffer(1000) for _ in range(2))
        ctypes.c_void_p.from_buffer(info).value = library.jpeg_std_error(errors)
        library.jpeg_CreateDecompress(info, version, size)
        library.jpeg_mem_src(info, data, ctypes.c_ulong(len(data)))
        library.jpeg_read_header(info, 1)
        library.jpeg_read_coefficients(info)
        library.jpeg_destroy_decompress(info)

    return read


def speed_of(files: list[bytes], turns: int) -> dict[str, float]:
    """By function, mean milliseconds a file, and how many times as fast transcoding and reading are."""
    functions: dict[str, Callable[[bytes], Any]] = {
        "Pillow decodes and encodes": _pillow,
        "Pillow decodes, dnnjpeg encodes": _ours,
        "transcode": lambda data: transcode(data, "standard", QUALITY),
        "Pillow decodes": _decode,
        "libjpeg-turbo reads coefficients": libjpegs_reading(),
        "read_coefficients": read_coefficients,
    }
    best = {name: np.full(len(files), np.inf) for name in functions}
    for _ in range(turns):
        for i, data in enumerate(files):
            for name, function in functions.items():
                start = time.thread_time()
                function(data)
                best[name][i] = min(best[name][i], time.thread_time() - start)

    def ratio(slow: str, fast: str) -> float:
        return round(float(np.exp(np.mean(np.log(best[slow] / best[fast])))), 3)

    found = {f"{name}, ms": round(1000 * float(times.mean()), 3) for name, times in best.items()}
    for name in list(functions)[:2]:
        found[f"transcode over: {name}"] = ratio(name, "transcode")
    for name in list(functions)[3:5]:
        found[f"read_coefficients over: {name}"] = ratio(name, "read_coefficients")
    return found


def stages_of(files: list[bytes], turns: int) -> dict[str, float]:
    """By stage, mean milliseconds of a sequential file; and what would be reached without the others."""
    point, _ = operating_point(standard_table(), QUALITY)
    best: dict[str, np.ndarray] = {}
    files = [data for data in files if Decoded.read(data, later=True).source.found]
    for _ in range(turns):
        for i, data in enumerate(files):
            source = Decoded.read(data).source
            coding, change = prepared_transcoding(point, DEFAULTS, source.frame, source.colour, source.tables)
            planes = requantized(coding.frame, source.planes, change)
            stages: dict[str, Callable[[], Any]] = {
                "headers": partial(Decoded.read, data, later=True),
                "headers and decoding": partial(Decoded.read, data),
                "requantizing": partial(requantized, coding.frame, source.planes, change),
                "coding": partial(coding.smallest, b"", planes),
                "transcode": partial(transcode, data, "standard", QUALITY),
                "Pillow decodes and encodes": partial(_pillow, data),
                "Pillow decodes, dnnjpeg encodes": partial(_ours, data),
            }
            for name, function in stages.items():
                start = time.thread_time()
                function()
                times = best.setdefault(name, np.full(len(files), np.inf))
                times[i] = min(times[i], time.thread_time() - start)
    best["decoding"] = best["headers and decoding"] - best["headers"]
    found = {f"{name}, ms": round(1000 * float(times.mean()), 3) for name, times in best.items()}
    stages_sum = best["headers and decoding"] + best["requantizing"] + best["coding"]
    for kept, times in (("decoding", best["decoding"]), ("the stages", stages_sum)):
        for other in list(best)[5:7]:
            found[f"{kept} alone over: {other}"] = round(
                float(np.exp(np.mean(np.log(best[other] / times)))), 3
            )
    return found


def folder_of(paths: list[Path], turns: int, before: Path | None) -> dict[str, float]:
    """Pictures a second, by coefficients, by pixels and by an older version; medians, and those of the turns'
    ratios.
    """
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        source = Path(folder) / "source"
        source.mkdir()
        for path in paths:
            for i in range(COPIES):
                (source / f"{path.stem}_{i}.jpg").write_bytes(path.read_bytes())
        what = ["encode", source, "-o", Path(folder) / "out", "--jobs", "2"]
        commands: dict[str, list[Any]] = {
            "coefficients": [DNNJPEG, *what, "--table", "standard"],
            "pixels": [DNNJPEG, *what, "--table", "standard", "--pixels"],
        }
        if before:
            commands["before"] = [before, *what]  # the standard table was its default
        times = []
        for turn in range(turns + 1):
            turn_times = [run(command)["wall"] for command in commands.values()]
            times += [turn_times] * (turn > 0)  # the first compiles
    walls = dict(zip(commands, np.array(times).T, strict=True))
    count = len(paths) * COPIES
    speeds = {
        f"{name}, pictures a second": round(count / float(np.median(one)), 1) for name, one in walls.items()
    }
    ratios = {
        f"coefficients over {name}": round(float(np.median(one / walls["coefficients"])), 3)
        for name, one in walls.items()
        if name != "coefficients"
    }
    return {"pictures": count} | speeds | ratios


def _saved(picture: Image.Image, quality: int, subsampling: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
    return file.getvalue()


def worth_of(sources: list[bytes], table: str, asked: tuple[int, ...]) -> dict[str, list[float]]:
    """By quality asked, the change of bytes in per cent, from coefficients over from pixels; the interval."""
    from dnnjpeg.networks.load import load_network
    from dnnjpeg.networks.readings import compare, decode

    network = load_network(f"{Path(os.environ['DNNJPEG_DATA']) / 'models' / 'zoo.py'}:mobilenet_v2")
    clean = network.read([decode(data) for data in sources])

    def measured(make: Callable[[bytes], bytes]) -> np.ndarray:
        """Bytes and divergence by picture."""
        made = [make(data) for data in sources]
        read = network.read([decode(data) for data in made])
        return np.array([[len(data) for data in made], compare(read, clean).divergence])

    curve = [measured(lambda data, q=q: _ours(data, q, table)) for q in CURVE]
    ours = [measured(lambda data, q=q: transcode(data, table, q)) for q in asked]
    rng = np.random.default_rng(0)
    draws = [np.arange(len(sources)), *rng.integers(0, len(sources), (DRAWS, len(sources)))]
    found = {}
    for q, one in zip(asked, ours, strict=True):
        changes = []
        for drawn in draws:
            sizes, divergences = np.log([other[:, drawn].mean(axis=1) for other in curve]).T
            size, divergence = np.log(one[:, drawn].mean(axis=1))
            at_equal = np.interp(divergence, divergences[::-1], sizes[::-1])
            changes.append(100 * float(np.expm1(size - at_equal)))
        found[str(q)] = [round(value, 2) for value in (changes[0], *np.percentile(changes, [2.5, 97.5]))]
    return found


@click.command()
@click.argument("what", type=click.Choice(["speed", "stages", "folder", "worth"]))
@click.option("--count", type=int, help="Pictures of a folder.  [default: all; for worth 100]")
@click.option("--turns", default=7, show_default=True, help="Of each function or command.")
@click.option("--pictures", default="full/learn", show_default=True, help="The folder for worth.")
@click.option(
    "--before",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="The command dnnjpeg of an older version, for folder.",
)
@click.option("--suffix", default="", help="Of the name of the file of results, for another machine.")
@click.option("--show", is_flag=True, help="Print the last run, and measure nothing.")
def main(
    what: str, count: int | None, turns: int, pictures: str, before: Path | None, suffix: str, show: bool
) -> None:
    """Measure, print, and write benchmarks/results/transcode_WHAT.json."""
    name = f"transcode_{what}{suffix}"
    if pictures != "full/learn":
        name += f"_{Path(pictures).name}"
    if not show:
        groups: dict[str, Any] = {}
        if what == "worth":
            images = [Image.open(path).convert("RGB") for path in _paths(pictures, count or 100)]
            for (quality, subsampling), asked in SOURCES.items():
                sources = [_saved(image, quality, subsampling) for image in images]
                for table in ("standard", "universal"):
                    key = f"{table}, {quality} {subsampling}"
                    groups[key] = worth_of(sources, table, asked)
                    click.echo(f"{key}: {groups[key]}", err=True)
                    write(name, {"pictures": pictures, "count": len(images), "groups": groups})
        else:
            for folder in FOLDERS:
                paths = _paths(folder, count)
                if what in ("speed", "stages"):
                    measure = speed_of if what == "speed" else stages_of
                    groups[folder] = measure([path.read_bytes() for path in paths], turns)
                else:
                    groups[folder] = folder_of(paths, turns, before)
            write(name, {"quality": QUALITY, "count": count, "groups": groups})
    click.echo(json.dumps(json.loads((RESULTS / f"{name}.json").read_text())["groups"], indent=2))


if __name__ == "__main__":
    main()
