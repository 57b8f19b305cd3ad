"""What a newcomer runs first: it draws, encodes, and tells the truth about the bytes."""

import io
import re

import numpy as np
from click.testing import CliRunner
from PIL import Image

import dnnjpeg
from dnnjpeg.tools.cli import main
from dnnjpeg.tools.demo import draw


def test_demo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["demo"])
    assert (result.exit_code, result.stderr) == (0, "")
    drawn = [Image.open(path) for path in sorted((tmp_path / "demo" / "pictures").iterdir())]
    files = sorted((tmp_path / "demo" / "jpeg").iterdir())
    assert [path.name for path in files] == [f"{i:02}.jpg" for i in range(12)]
    for picture, path in zip(drawn, files, strict=True):
        assert dnnjpeg.inspect(path.read_bytes()).made_by == "dnnjpeg universal 75"
        decoded = np.asarray(Image.open(path), float)
        assert decoded.std() > 10 and np.abs(decoded - np.asarray(picture)).mean() < 6

    def pillows(picture):
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=75, optimize=True)
        return len(file.getvalue())

    ours, theirs = sum(path.stat().st_size for path in files), sum(map(pillows, drawn))
    ours_told, theirs_told = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) bytes", result.stdout))
    assert (ours_told, theirs_told) == (ours, theirs)
    assert f"{100 * (ours / theirs - 1):+.1f} %" in result.stdout


def test_demo_in_another_folder_and_once_more(tmp_path):
    for _ in range(2):
        result = CliRunner().invoke(main, ["demo", str(tmp_path / "elsewhere")])
        assert result.exit_code == 0
    assert len(list((tmp_path / "elsewhere" / "jpeg").iterdir())) == 12


def test_a_picture_is_the_same_for_the_same_arguments_and_none_is_flat():
    one, same, other = (np.asarray(draw(64, 48, seed)) for seed in (0, 0, 1))
    assert one.shape == (48, 64, 3)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert one.std() > 10
