"""How long the first picture waits: importing, starting the command, compiling.

python benchmarks/startup.py
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from common import DNNJPEG, run, write

from dnnjpeg.tools.demo import draw

# What `import dnnjpeg` adds to a bare interpreter: seconds, and modules that it must not load.
IMPORT = """
import json, sys, time
start = time.perf_counter()
import dnnjpeg
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted({"numpy", "numba", "torch", "cv2"} & sys.modules.keys())]), file=sys.stderr)
"""


INSTALLED = {"PYTHONDONTWRITEBYTECODE": ""}  # installed packages have their byte code


def spread(values: list[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 3), "fastest": round(min(values), 3)}


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    one = folder / "one.jpg"
    draw(500, 375).save(one, quality=95)
    encode: list[str | Path] = [DNNJPEG, "encode", one, "-o", folder / "out.jpg"]

    run(encode, **INSTALLED)  # compiles, in case this is the first time
    imports = [json.loads(run([sys.executable, "-c", IMPORT], **INSTALLED)["stderr"]) for _ in range(rounds)]
    bare = [run([sys.executable, "-c", "pass"])["wall"] for _ in range(rounds)]
    warm = [run(encode, **INSTALLED) for _ in range(rounds)]
    cold = run(encode, NUMBA_CACHE_DIR=str(folder / "empty"), **INSTALLED)
    return {
        "bare python, seconds": spread(bare),
        "import dnnjpeg, seconds more": spread([seconds for seconds, _ in imports]),
        "import dnnjpeg, heavy modules loaded": imports[0][1],
        "dnnjpeg encode one.jpg, wall seconds": spread([one["wall"] for one in warm]),
        "dnnjpeg encode one.jpg, CPU seconds": spread([one["cpu"] for one in warm]),
        "the same with nothing compiled, wall seconds": cold["wall"],
        "the same with nothing compiled, CPU seconds": cold["cpu"],
        "the same with nothing compiled, standard error": cold["stderr"].strip(),
    }


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=11, show_default=True)
def main(rounds: int) -> None:
    """Measure, print, and write benchmarks/results/startup.json."""
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), rounds)
    write("startup", {"results": results})
    for name, value in results.items():
        click.echo(f"{name}: {value if not isinstance(value, dict) else json.dumps(value)}")


if __name__ == "__main__":
    main()
