"""Tables by name: the standard one, a user's own, and what is taken for a path."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dnnjpeg
from dnnjpeg.plugins import opencv
from dnnjpeg.table.library import (
    chosen_table,
    list_tables,
    load_table,
    standard_table,
    table_for,
    user_folder,
)
from dnnjpeg.table.table import Table


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DNNJPEG_TABLES", str(tmp_path))
    return tmp_path


def test_standard_is_installed(folder: Path) -> None:
    assert list_tables()["standard"] is None
    assert load_table("standard") is standard_table()


def test_user_tables_load_by_name_and_again_when_they_change(folder: Path) -> None:
    with pytest.raises(
        ValueError,
        match=rf"no table is named 'mine'\. Installed tables: standard.*{re.escape(str(folder))}",
    ):
        load_table("mine")
    path = folder / "mine.json"
    Table("mine", [standard_table().at(50)]).save(path)
    assert list_tables()["mine"] == path
    first = load_table("mine")
    assert first.points == (standard_table().at(50),)
    assert load_table("mine") is first
    size = path.stat().st_size
    Table("nine", [standard_table().at(50)]).save(path)
    os.utime(path, ns=(1, 1))  # a new time, however coarse the clock
    assert path.stat().st_size == size
    assert load_table("mine").name == "nine"


def test_a_name_that_two_files_claim_loads_by_path_alone(folder: Path) -> None:
    path = folder / "standard.json"
    Table("other", [standard_table().at(50)]).save(path)
    assert list_tables()[str(path)] == path
    assert load_table("standard") is standard_table()
    assert load_table(str(path)).name == "other"


def test_shipped_tables_keep_their_names(folder: Path) -> None:
    """A user may have a table of the same name, a copy of one, or the shipped folder itself."""
    shipped = list_tables()["universal"]
    path = folder / "universal.json"
    Table("other", [standard_table().at(50)]).save(path)
    assert (list_tables()["universal"], list_tables()[str(path)]) == (shipped, path)
    assert load_table("universal").name == "universal" and load_table(path).name == "other"
    path.unlink()
    path.symlink_to(shipped)
    assert str(path) not in list_tables() and list_tables()["universal"] == shipped


@pytest.mark.parametrize(
    "models", ["x", [None], ["resnet18"], [["x"]], [{"weights": 3}, {"weights": "a"}], [{}], {}]
)
def test_any_provenance_is_passed_over(models: Any, folder: Path) -> None:
    table = Table("mine", [standard_table().at(50)], provenance={"models": models})
    table.save(folder / "mine.json")
    assert table_for(["a"]) == "universal"


def test_a_path_is_never_taken_for_a_name(folder: Path) -> None:
    for path in ("missing.json", "./missing", folder / "missing"):
        with pytest.raises(FileNotFoundError):
            load_table(path)
    with pytest.raises(ValueError, match="no table is named 'missing'"):
        load_table("missing")


def test_the_users_folder_is_the_platforms_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DNNJPEG_TABLES", raising=False)
    assert user_folder().parts[-2:] == ("dnnjpeg", "tables")
    monkeypatch.setenv("DNNJPEG_TABLES", "~/x")
    assert user_folder() == Path.home() / "x"
    monkeypatch.setenv("DNNJPEG_TABLES", str(tmp_path / "missing"))
    assert "standard" in list_tables()


def test_tables_and_inspection_import_neither_numpy_nor_platformdirs() -> None:
    code = (
        "import sys, dnnjpeg.jpeg.inspect; from dnnjpeg.table import library;"
        "library.standard_table().at(62.5);"
        "print(sorted({'numpy', 'numba', 'torch', 'cv2', 'platformdirs', 'click'} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_model_is_the_name_of_an_installed_table() -> None:
    """One manner in Python, Pillow, OpenCV and on the command line."""
    assert chosen_table(None, None) == "universal"
    assert chosen_table("a.json", None) == "a.json"
    assert chosen_table(None, "resnet50") == "resnet50"
    with pytest.raises(ValueError, match="model and table each choose"):
        chosen_table("standard", "resnet50")
    for path in ("tables/resnet50.json", "resnet50.json", "./resnet50"):
        with pytest.raises(ValueError, match="a path is for table"):
            chosen_table(None, path)
    with pytest.raises(TypeError, match="model is a PosixPath"):
        chosen_table(None, Path("resnet50"))


def test_every_way_to_encode_takes_a_model(photo: Image.Image) -> None:
    data = dnnjpeg.encode(photo, model="resnet50", quality=60)
    assert data == dnnjpeg.encode(photo, "resnet50", 60)
    saved = io.BytesIO()
    photo.save(saved, "DNNJPEG", model="resnet50", quality=60)
    assert saved.getvalue() == data
    bgr = np.ascontiguousarray(np.asarray(photo)[:, :, ::-1])
    _, encoded = opencv.imencode(".jpg", bgr, [1, 60], model="resnet50")
    assert encoded.tobytes() == data
    source = dnnjpeg.encode(photo, quality=95)
    assert dnnjpeg.transcode(source, model="resnet50") == dnnjpeg.transcode(source, "resnet50")
    with pytest.raises(ValueError, match="a path is for table"):
        dnnjpeg.encode(photo, model="resnet50.json")
    with pytest.raises(ValueError, match="a path is for table"):
        photo.save(io.BytesIO(), "DNNJPEG", model="resnet50.json")
    with pytest.raises(ValueError, match="a path is for table"):
        opencv.imencode(".jpg", bgr, model="resnet50.json")


def test_a_link_to_itself_is_passed_over(folder: Path) -> None:
    (folder / "universal.json").symlink_to("universal.json")
    assert load_table("resnet18").name == "resnet18" and table_for(["x"]) == "universal"
