"""Arrays kept on disk: what comes back is what was kept, or nothing."""

from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dnnjpeg.files.cache import Cache

ARRAYS = {"loss": np.linspace(0, 1, 100), "top1": np.arange(100) % 3 == 0, "bytes": np.arange(100)}


def kept(folder: Path) -> tuple[Cache, Path]:
    cache = Cache(folder)
    cache.save("x", ARRAYS)
    return cache, folder / "x.npz"


def is_whole(found: dict[str, np.ndarray]) -> bool:
    return found.keys() == ARRAYS.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array)
        for name, array in ARRAYS.items()
    )


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    cache, _ = kept(tmp_path / "new" / "folder")
    assert is_whole(cache.load("x"))
    assert cache.load("y") == {}


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_is_never_taken_for_arrays(data: st.DataObject, tmp_path: Path) -> None:
    cache, path = kept(tmp_path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))])
    found = cache.load("x")
    assert found == {} or is_whole(found)


def test_a_bit_anywhere_in_a_file_may_be_damaged(tmp_path: Path) -> None:
    cache, path = kept(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert cache.load("x") == {}, at
