"""Memory for packed weights, and the sizes that it depends on."""

import gc
import mmap
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from dnnjpeg.machine.processors import cache_size  # noqa: E402
from dnnjpeg.sparse import workspace  # noqa: E402


def test_packed_tensors_are_copies_in_places_of_their_own() -> None:
    given = [torch.randn(3, 5).T, torch.randn(7), torch.randn(900, 3000), torch.zeros(0, 4)]
    packed = [workspace.packed(tensor) for tensor in given]
    for tensor, copy in zip(given, packed, strict=True):
        assert torch.equal(copy, tensor) and copy.is_contiguous() and copy.data_ptr() % 64 == 0
    packed[0][:] = 1.0
    given[1][:] = 2.0
    assert torch.equal(packed[2], given[2]) and not (packed[1] == 2).any()


def test_the_memory_goes_with_the_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counted(mmap.mmap):
        def __init__(self, *args: object, **options: object) -> None:
            made.append(1)

        def __del__(self) -> None:
            made.pop()

    none = torch.empty(0, dtype=torch.uint8)
    monkeypatch.setattr(workspace, "_rest", none)
    monkeypatch.setattr(workspace.mmap, "mmap", Counted)
    kept = workspace.packed(torch.ones(workspace._CHUNK // 4 + 1))  # more than a chunk
    assert made == [1] and float(kept.sum()) == len(kept)
    del kept
    workspace._rest = none
    gc.collect()
    assert not made


def test_without_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(workspace.mmap, "MADV_HUGEPAGE", raising=False)
    monkeypatch.setattr(workspace, "_rest", torch.empty(0, dtype=torch.uint8))
    given = torch.randn(100)
    assert torch.equal(workspace.packed(given), given)


@pytest.mark.skipif(
    not Path("/sys/devices/system/cpu/cpu0/cache").is_dir(), reason="the system does not tell"
)
def test_sizes_of_caches() -> None:
    assert 8 << 10 <= cache_size(1) <= 512 << 10
    assert cache_size(1) < cache_size(2) <= 64 << 20
