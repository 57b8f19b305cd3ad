"""The kernels compiled for processors with and without AVX-512: the same convolutions."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

_PROGRAM = """
import sys
from itertools import product
import torch
sys.path.insert(0, sys.argv[1])
from layers import sparse_input, truth, weights_for
from dnnjpeg.machine.jit import host_has
from dnnjpeg.sparse import cpo
from dnnjpeg.sparse.depthwise import Depthwise
from dnnjpeg.sparse.direct import Direct
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.ring import RingConvolution
from dnnjpeg.sparse.tiling import Tiling, tilings
from dnnjpeg.sparse.winograd import LargeWinograd, Winograd

def check(y, expected):
    assert float((y - expected).abs().max()) < 1e-5 * float(expected.abs().max())
    print("equal")

most = int(sys.argv[2])  # of a ring's sums
assert host_has("avx512f") == host_has("avx512bw") == (most > 7)
geometry = Geometry(40, 9, 11, 70, (3, 3), (1, 1), (1, 1))
assert all(t.filters * t.ring_rows * 3 <= most or t.filters == 1 for t in tilings(geometry, True, 0.5))
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
for filters in (64, 70):
    geometry = Geometry(32, 17, 33, filters, (3, 3), (1, 1), (1, 1))
    x, weights = torch.randn(2, 32, 17, 33), weights_for(geometry, 2)
    check(Direct(geometry, weights, bias[:filters])(x), truth(x, geometry, weights, bias[:filters]))
for kind, channels in product((Winograd, LargeWinograd), (24, 32)):
    geometry = Geometry(channels, 17, 33, 64, (3, 3), (1, 1), (1, 1))
    x, weights = torch.randn(2, channels, 17, 33), weights_for(geometry, 3)
    check(kind(geometry, weights, bias[:64])(x), truth(x, geometry, weights, bias[:64]))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="AVX2 is of x86-64")
@pytest.mark.parametrize(("level", "sums"), [("x86-64-v3", 7), ("x86-64-v4", 28)])
def test_with_vectors_of_its_own(level: str, sums: int, tmp_path: Path) -> None:
    if sums > 7 and not {"avx512f", "avx512bw"} <= _features():
        pytest.skip("this processor has no AVX-512")
    environment = {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(Path(__file__).parent), str(sums)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "equal\n" * 20


def _features() -> set[str]:
    """What the processor can do, in LLVM's names, without what the environment says."""
    from llvmlite import binding

    return {name for name, there in binding.get_host_cpu_features().items() if there}
