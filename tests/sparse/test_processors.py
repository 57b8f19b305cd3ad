"""The kernels compiled for a processor without AVX-512: the same convolutions."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

_PROGRAM = """
import sys
import torch
sys.path.insert(0, sys.argv[1])
from layers import sparse_input, truth, weights_for
from dnnjpeg.machine.jit import host_has
from dnnjpeg.sparse import cpo
from dnnjpeg.sparse.depthwise import Depthwise
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.ring import RingConvolution
from dnnjpeg.sparse.tiling import Tiling, tilings

def check(y, expected):
    assert float((y - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    print("equal")

assert not host_has("avx512f") and not host_has("avx512bw")
geometry = Geometry(40, 9, 11, 70, (3, 3), (1, 1), (1, 1))
assert all(t.filters * t.ring_rows * 3 <= 7 or t.filters == 1 for t in tilings(geometry, True, 0.5))
weights, bias = weights_for(geometry, 0), torch.linspace(-1, 1, 70)
for last, tiling in ((True, Tiling(True, 32, 2, 1)), (False, Tiling(False, 16, 1, 3))):
    layer = RingConvolution(geometry, weights, bias, tiling, activation="relu")
    onward = Tiling(tiling.patterns, 16, 1, 1)
    following = Geometry(70, 9, 11, 20, (1, 1))
    second = RingConvolution(following, weights_for(following, 1), None, onward)
    for zeros in (0.0, 0.6, 1.0):
        x = sparse_input(geometry, zeros, 2, last, 1)
        expected = truth(x, geometry, weights, bias).relu()
        y, lists = layer.convolve(layer.compress(x), channels_last=last, onward=onward)
        check(y, expected)
        check(second.convolve(lists)[0], truth(expected.float(), following, weights_for(following, 1)))
x = sparse_input(geometry, 0.6, 1, True, 1)
check(cpo.convolve(cpo.compress(x, geometry), weights), truth(x, geometry, weights))
geometry = Geometry(40, 9, 11, 40, (3, 3), (2, 2), (0, 1), (1, 1), groups=40)
x, weights = torch.randn(2, 40, 9, 11), torch.randn(40, 1, 3, 3)
check(Depthwise(geometry, weights, bias[:40])(x), truth(x, geometry, weights, bias[:40]))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is of x86-64")
def test_with_avx2(tmp_path: Path) -> None:
    environment = {"NUMBA_CPU_NAME": "x86-64-v3", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(Path(__file__).parent)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n" * 14
