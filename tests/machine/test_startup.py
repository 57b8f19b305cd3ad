"""What a program loads when it starts, and how it ends."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# what makes the start of `dnnjpeg encode` slow, and is of no use there
UNNEEDED = {"numpy.ma", "scipy", "yaml", "tqdm", "torch", "cv2", "onnxruntime"}


def test_a_command_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    picture = tmp_path / "one.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(picture)
    program = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print(*sys.modules.keys() & {UNNEEDED}, file=sys.stderr))\n"
        "from dnnjpeg.tools.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program, "encode", picture, "-o", tmp_path / "out.jpg"]
    found = [subprocess.run(command, capture_output=True, text=True, check=True).stderr for _ in range(2)]
    assert found[1] == "\n", "the first may have compiled"


ENDS = """
import atexit, sys, threading, time
atexit.register(print, "before")
from dnnjpeg.machine.startup import quick_end

def late():
    time.sleep(0.3)
    print("thread")

with quick_end():
    atexit.register(print, "after")
    threading.Thread(target=late).start()
    sys.stdout.write("text, ")
    {end}
"""


@pytest.mark.parametrize(
    ("end", "status", "quick"),
    [
        ("sys.exit(0)", 0, True),
        ("sys.exit(130)", 130, True),
        ("sys.exit()", 0, False),
        ("sys.exit('why')", 1, False),
        ("raise ValueError('why')", 1, False),
        ("pass", 0, False),
    ],
)
def test_a_quick_end_waits_for_threads_and_keeps_the_status(end: str, status: int, quick: bool) -> None:
    """What was registered with `atexit` before it is not done if it was quick."""
    command = [sys.executable, "-c", ENDS.replace("{end}", end)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert done.stdout == "text, thread\nafter\n" + ("" if quick else "before\n")
    assert ("why" in done.stderr) == ("why" in end)
