"""What the benchmarks share: pictures, clocks, and results as files that name the machine.

Results are in benchmarks/results, or in the folder that DNNJPEG_RESULTS names.
"""

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, features

from dnnjpeg.files.provenance import cpu_name, short
from dnnjpeg.machine.processors import processors
from dnnjpeg.tools.demo import draw

DNNJPEG = Path(sys.executable).with_name("dnnjpeg")
RESULTS = Path(os.environ.get("DNNJPEG_RESULTS") or Path(__file__).parent / "results")
SIZES = "500x375", "768x512", "4000x3000"  # of pictures


def pictures() -> dict[str, list[Image.Image]]:
    """RGB pictures by size: photographs from $DNNJPEG_DATA/data where that is set, else drawn ones."""
    root = os.environ.get("DNNJPEG_DATA")
    if root:
        photos = Path(root) / "data" / "photos"
        web = (Image.open(path) for path in sorted((photos / "web").iterdir()))
        small = [image.convert("RGB") for image in web if sorted(image.size) == [375, 500]][::8]
        middle = [Image.open(path).convert("RGB") for path in sorted(photos.glob("kodim*.png"))]
    else:
        small = [draw(500, 375, seed) for seed in range(6)]
        middle = [draw(768, 512, seed) for seed in range(6)]
    large = [image.resize((4000, 3000), Image.Resampling.LANCZOS) for image in middle[:2]]
    return dict(zip(SIZES, (small, middle, large), strict=True))


def alternate(functions: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Median seconds of each function.

    They take turns, so that what slows the machine down slows all of them. A turn begins with a call that
    does not count, so that none pays for the caches that another has filled.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or min(map(len, times.values())) < 7:
        for name, function in functions.items():
            function()
            start = turn = time.perf_counter()
            while start < turn + 0.01:
                function()
                times[name].append(time.perf_counter() - start)
                start = time.perf_counter()
    return {name: statistics.median(values) for name, values in times.items()}


def run(command: Sequence[str | Path], **environment: str) -> dict[str, Any]:
    """Run a command: wall and CPU seconds, and what it wrote to standard error."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, env=os.environ | environment, check=True, capture_output=True, text=True)
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"wall": round(wall, 3), "cpu": round(cpu, 2), "stderr": done.stderr}


def write(name: str, results: dict[str, Any]) -> None:
    """Write NAME.json into the folder of results: the machine, the command, the results."""
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *map(short, sys.argv[1:])])
    record = {"command": command, "machine": _machine(), **results}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


def _machine() -> dict[str, Any]:
    packages = [
        "dnnjpeg",
        "numpy",
        "numba",
        "llvmlite",
        "pillow",
        "opencv-python-headless",
        "simplejpeg",
        "pyjpegli",
        "PyTurboJPEG",
        "jpeglib",
    ]
    return {
        "cpu": _cpu(),
        "cores": processors(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "libjpeg-turbo": features.version("libjpeg_turbo"),
        **{name: _version(name) for name in packages if _version(name)},
    }


def _version(package: str) -> str | None:
    """None where the package is not installed: not each benchmark needs each peer."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    import llvmlite.binding

    return f"{cpu_name()} ({llvmlite.binding.get_host_cpu_name()})"
