"""JPEG sources never grow, and what the same request has made before stays as it is."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import dnnjpeg
from dnnjpeg.jobs.file import encode_files
from dnnjpeg.jobs.made import is_done, made_before
from dnnjpeg.jobs.tasks import FileOptions, FileTask, Result
from dnnjpeg.jpeg.signature import Signature, read_signature, signature_of, signature_segment
from dnnjpeg.options import EncodeOptions
from dnnjpeg.table.library import load_table
from dnnjpeg.transcoder import Decoded

RECIPE = FileOptions(load_table("universal"), 75)
ADAPTIVE = replace(RECIPE, options=EncodeOptions(adaptive=True))


def encode_file(task: FileTask, recipe: FileOptions) -> Result:
    (result,) = encode_files([task], recipe)
    return result


@pytest.fixture
def source(photo: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "a.jpg"
    photo.save(path, quality=95)
    return path


@pytest.mark.parametrize("recipe", [RECIPE, ADAPTIVE])
def test_a_second_run_changes_and_decodes_nothing(
    recipe: FileOptions, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert encode_file(FileTask(source, source), recipe).status == "encoded"
    before, status = source.read_bytes(), source.stat()
    monkeypatch.setattr(Decoded, "read", pytest.fail)
    again = encode_file(FileTask(source, source), recipe)
    assert (again.status, again.bytes_after, again.pixels) == ("copied", len(before), 160 * 120)
    assert source.stat().st_mtime_ns == status.st_mtime_ns
    assert encode_file(FileTask(source, tmp_path / "b.jpg"), recipe).status == "copied"
    assert (tmp_path / "b.jpg").read_bytes() == source.read_bytes() == before


@pytest.mark.parametrize(
    "other",
    [
        replace(RECIPE, quality=60),
        replace(RECIPE, table=load_table("standard")),
        replace(RECIPE, only_if_smaller=False),
        replace(RECIPE, metadata="strip"),
        replace(RECIPE, options=EncodeOptions(progressive=True)),
        replace(RECIPE, options=EncodeOptions(subsampling="4:2:0")),
        replace(RECIPE, target={"target_bytes": 2000}),
    ],
)
def test_another_request_is_another_request(other: FileOptions, source: Path) -> None:
    encode_file(FileTask(source, source), RECIPE)
    data = source.read_bytes()
    assert made_before(data, RECIPE) is not None
    assert made_before(data, other) is None


def test_damage_is_not_made_before(source: Path) -> None:
    encode_file(FileTask(source, source), RECIPE)
    data = source.read_bytes()
    assert signature_of(data) == Signature("universal", 75)
    for damaged in (b"", data[:30], data[:-500], b"\xff\xd8" + data[40:], b"\xff\xd8\xff\xd9", b"text"):
        assert made_before(damaged, RECIPE) is None


def test_a_file_of_ours_that_breaks_off_is_refused(source: Path, tmp_path: Path) -> None:
    encode_file(FileTask(source, source), RECIPE)
    source.write_bytes(source.read_bytes()[:-500])
    result = encode_file(FileTask(source, tmp_path / "b.jpg"), RECIPE)
    assert result.status == "failed" and "breaks off" in result.reason
    assert not (tmp_path / "b.jpg").exists()
    source.rename(tmp_path / "b.jpg")
    source.write_bytes(b"another")
    assert not is_done(source, tmp_path / "b.jpg", RECIPE)


@pytest.mark.parametrize("name", ["my 8 bits", "x 50 read", "a", "8", "read 75"])
@pytest.mark.parametrize("adapted", ["", "bits 75", "read 9.5"])
def test_any_name_in_a_signature(name: str, adapted: str) -> None:
    assert read_signature(signature_segment(name, 60.5, adapted)[4:]) == Signature(name, 60.5, adapted)


def test_files_of_ours_are_adapted_once(source: Path) -> None:
    """To each quality on average."""
    encode_file(FileTask(source, source), replace(RECIPE, quality=95))
    assert made_before(source.read_bytes(), ADAPTIVE) is None
    for quality in (85, 40):
        recipe, before = replace(ADAPTIVE, quality=quality), source.stat().st_size
        assert encode_file(FileTask(source, source), recipe).status == "encoded"
        assert source.stat().st_size < before
        assert signature_of(source.read_bytes()).adaptation == f"bits {recipe.quality}"
        assert encode_file(FileTask(source, source), recipe).status == "copied"
    other = replace(RECIPE, quality=40, options=EncodeOptions(adaptive="read"))
    assert made_before(source.read_bytes(), other) is None


@pytest.mark.parametrize(
    ("loose", "tight"),
    [({"target_bytes": 6000}, {"target_bytes": 3000}), ({"target_bpp": 2.0}, {"target_bpp": 1.0})],
)
def test_a_file_beyond_the_limit_is_not_done(
    loose: dict[str, float], tight: dict[str, float], source: Path, tmp_path: Path
) -> None:
    made = tmp_path / "b.jpg"
    (file,) = dnnjpeg.encode_to_target([source.read_bytes()], "universal", **loose)
    made.write_bytes(file.data)
    assert is_done(source, made, replace(RECIPE, target=loose))
    assert not is_done(source, made, replace(RECIPE, target=tight))


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("quality", [10, 40])
def test_a_jpeg_never_grows(pixels: bool, quality: int, photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo.save(path, quality=quality, optimize=True)
    before = path.read_bytes()
    recipe = replace(RECIPE, quality=90, pixels=pixels)
    result = encode_file(FileTask(path, tmp_path / "b.jpg"), recipe)
    after = (tmp_path / "b.jpg").read_bytes()
    assert result.bytes_after == len(after) <= len(before)
    if pixels:
        assert (result.status, after) == ("copied", before)
    always = encode_file(FileTask(path, tmp_path / "c.jpg"), replace(recipe, only_if_smaller=False))
    assert always.status == "encoded" and (not pixels or always.bytes_after > len(before))


def test_other_formats_may_grow(photo: Image.Image, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    task = FileTask(tmp_path / "a.png", tmp_path / "a.jpg")
    assert encode_file(task, RECIPE).bytes_after > (tmp_path / "a.png").stat().st_size
    result = encode_file(task, replace(RECIPE, only_if_smaller=True))
    assert (result.status, result.reason) == ("skipped", "is smaller than its JPEG")


def test_what_is_salvaged_is_not_a_copy(source: Path, tmp_path: Path) -> None:
    source.write_bytes(source.read_bytes()[:700] + b"\xff\xd9")
    result = encode_file(FileTask(source, tmp_path / "b.jpg"), replace(RECIPE, salvage=True))
    assert result.status == "encoded"
    assert dnnjpeg.inspect((tmp_path / "b.jpg").read_bytes()).complete


def test_done(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "b.jpg"
    encode_file(FileTask(source, out), RECIPE)
    assert is_done(source, out, RECIPE)
    assert not is_done(source, out, ADAPTIVE)
    assert not is_done(source, out, replace(RECIPE, target={"target_bytes": 9}))
    assert is_done(source, out, replace(RECIPE, target={"target_bytes": 100_000}))
    assert not is_done(source, out, replace(RECIPE, quality=74))
    assert not is_done(source, out, replace(RECIPE, table=load_table("resnet18")))
    out.write_bytes(source.read_bytes())
    assert is_done(source, out, RECIPE)  # copied, as it would not get smaller
    out.write_bytes(b"something else")
    assert not is_done(source, out, RECIPE)
    assert is_done(source, out, replace(RECIPE, options=EncodeOptions(signature=False)))
