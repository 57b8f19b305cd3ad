"""`dnnjpeg inspect` on good and bad files."""

import io
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dnnjpeg.jpeg.inspect import inspect as inspect_bytes
from dnnjpeg.tools.cli import main


def run(*arguments: object, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)], input=stdin)


@pytest.fixture
def jpeg(photo: Image.Image) -> bytes:
    buffer = io.BytesIO()
    photo.save(
        buffer, "JPEG", quality=80, subsampling=1, comment="drawn\x1b[31m by\nhand", restart_marker_blocks=4
    )
    return buffer.getvalue()


def test_text(jpeg: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a b.jpg"
    path.write_bytes(jpeg)
    result = run(path)
    assert result.exit_code == 0
    found = inspect_bytes(jpeg)
    first, *lines = result.stdout.splitlines()
    bits = 8 * len(jpeg) / (160 * 120)
    assert (
        first
        == f"{path}: 160x120, 3 components, 4:2:2, baseline, {len(jpeg):,} bytes, {bits:.2f} bits a pixel"
    )
    assert "  made by      drawn [31m by hand" in lines
    assert "  luma         the standard table at quality 80" in lines
    assert "  metadata     JFIF" in lines
    assert "  coding       8 bits, scans 1, Huffman tables 4, restart interval 4" in lines
    assert f"  header       {found.header_bytes:,} bytes; scan data {found.scan_bytes:,}" in lines
    table = lines.index("  table 1, of component 2, 3")
    steps = [int(step) for line in lines[table + 1 : table + 9] for step in line.split()]
    assert tuple(steps) == found.quantization[1]


def test_tables_that_are_not_standard_and_files_cut_short(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    photo.convert("L").save(path, qtables=[[16] * 64])
    path.write_bytes(path.read_bytes()[:-2])
    stdout = run(path).stdout
    assert "1 component, 4:0:0" in stdout
    assert "  luma         nearest to standard quality " in stdout
    assert "  broken off   no end of image (EOI)" in stdout
    assert "chroma" not in stdout


def test_json_is_one_object_a_line(jpeg: bytes, tmp_path: Path) -> None:
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for path in paths:
        path.write_bytes(jpeg)
    lines = run("--json", *paths).stdout.splitlines()
    documents = [json.loads(line) for line in lines]
    assert [document.pop("file") for document in documents] == [str(path) for path in paths]
    assert documents[0] == documents[1] == json.loads(json.dumps(inspect_bytes(jpeg).to_json()))


def test_standard_input(jpeg: bytes) -> None:
    result = run("-", "--json", stdin=jpeg)
    assert (result.exit_code, json.loads(result.stdout)["width"]) == (0, 160)


def test_tables_only(photo: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "tables.jpg"
    photo.save(path, streamtype=1, quality=50)
    result = run(path)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{path}: tables only, {path.stat().st_size} bytes\n")
    assert "chroma       the standard table at quality 50" in result.stdout


def test_bad_files_are_a_line_each_and_the_run_goes_on(jpeg: bytes, tmp_path: Path) -> None:
    good, text, missing = tmp_path / "good.jpg", tmp_path / "text.jpg", tmp_path / "missing.jpg"
    good.write_bytes(jpeg)
    text.write_text("hello")
    result = run(text, tmp_path, missing, good)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{good}: 160x120")
    assert result.stderr.splitlines() == [
        f"{text}: not a JPEG: it starts with 68 65 6c 6c, expected ff d8",
        f"{tmp_path}: Is a directory",
        f"{missing}: No such file or directory",
    ]


def test_no_file_is_a_usage_error() -> None:
    result = run()
    assert result.exit_code == 2
    assert "Missing argument 'FILE...'" in result.stderr


def test_names_that_are_not_utf8(jpeg: bytes, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")
    try:
        Path(path).write_bytes(jpeg)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert run(path).exit_code == 0
    assert json.loads(run("--json", path).stdout)["file"] == path


def test_names_that_would_steer_a_terminal(jpeg: bytes, tmp_path: Path) -> None:
    good, bad = tmp_path / "two\nlines\x1b[31m.jpg", tmp_path / "a\rb.jpg"
    good.write_bytes(jpeg)
    result = run(good, bad)
    assert result.stdout.startswith(f"{tmp_path}/two\\nlines\\x1b[31m.jpg: 160x120, ")
    assert result.stderr == f"{tmp_path}/a\\rb.jpg: No such file or directory\n"


def test_malformed_files(data_dir: Path) -> None:
    paths = sorted((data_dir / "malformed").glob("*.jpg"))
    result = run("--json", *paths)
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert len(result.stdout.splitlines()) + len(result.stderr.splitlines()) == len(paths)
