"""`dnnjpeg encode` as its users meet it: trees, streams, failures, signals, full disks."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageCms, ImageOps

from dnnjpeg.files import TEMPORARY_SUFFIX
from dnnjpeg.tools.cli import main

COMMAND = [sys.executable, "-W", "error", "-c", "from dnnjpeg.tools.cli import main; main()", "encode"]


@pytest.fixture(scope="module", autouse=True)
def warm() -> None:
    """Compiled before anything is timed, interrupted or searched for unexpected output."""
    from dnnjpeg.codec import encoder

    encoder.warmup()


def encode(*arguments: object, **options) -> Result:
    given = [os.fspath(a) if isinstance(a, os.PathLike) else str(a) for a in arguments]
    result = CliRunner().invoke(main, ["encode", *given], **options)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def psnr(one: Image.Image, other: Image.Image) -> float:
    difference = np.asarray(one.convert("RGB")).astype(float) - np.asarray(other.convert("RGB"))
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


@pytest.fixture
def source(photo, tmp_path) -> Path:
    """photos/a.png, b.jpg, sub/c d.webp, sub/deep/e.tif."""
    folder = tmp_path / "photos"
    (folder / "sub" / "deep").mkdir(parents=True)
    photo.save(folder / "a.png")
    photo.save(folder / "b.jpg", quality=95)
    photo.save(folder / "sub" / "c d.webp")
    photo.save(folder / "sub" / "deep" / "e.tif")
    return folder


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


# --- what is written, and where


def test_folder_becomes_a_tree_of_jpegs(source, out, photo):
    result = encode(source, "-o", out)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert files(out) == ["a.jpg", "b.jpg", "sub/c d.jpg", "sub/deep/e.jpg"]
    for name in files(out):
        with Image.open(out / name) as image:
            assert image.format == "JPEG"
            assert psnr(image, photo) > 25
    before = sum((source / name).stat().st_size for name in files(source))
    after = sum((out / name).stat().st_size for name in files(out))
    assert result.stdout.startswith("4 encoded, 0 failed in ")
    assert f"{before:,} -> {after:,} bytes" in result.stdout
    assert f"{8 * after / (4 * 160 * 120):.2f} bits per pixel" in result.stdout


def test_no_recursive(source, out):
    assert encode(source, "-o", out, "--no-recursive").exit_code == 0
    assert files(out) == ["a.jpg", "b.jpg"]


def test_files_by_name(source, out):
    assert encode(source / "a.png", source / "sub" / "c d.webp", "-o", out).exit_code == 0
    assert files(out) == ["a.jpg", "c d.jpg"]


def test_one_file_to_a_file_name(source, tmp_path):
    target = tmp_path / "new" / "x.jpeg"
    assert encode(source / "a.png", "-o", target).exit_code == 0
    assert opened(target).format == "JPEG"


def test_options_reach_the_codec(source, out):
    sizes = {}
    for options in ("", "--quality 30", "--quality 30.5", "--subsampling 4:4:4", "--progressive"):
        assert encode(source / "a.png", "-o", out / "x.jpg", *options.split()).exit_code == 0
        with Image.open(out / "x.jpg") as image:
            sizes[options] = (out / "x.jpg").stat().st_size
            assert bool(image.info.get("progressive")) == (options == "--progressive")
            assert (image.layer[0][1:3] == (1, 1)) == (options == "--subsampling 4:4:4")
    assert sizes["--quality 30"] < sizes[""] < sizes["--subsampling 4:4:4"]


def test_progressive_auto_is_the_smaller(source, out):
    for options in ("--baseline", "--progressive", "--progressive-auto"):
        assert encode(source / "a.png", "-o", out / f"{options}.jpg", options).exit_code == 0
    sizes = [
        (out / f"{options}.jpg").stat().st_size
        for options in ("--baseline", "--progressive", "--progressive-auto")
    ]
    assert sizes[2] == min(sizes)


def test_table_from_a_file(source, out, tmp_path):
    from dnnjpeg.table import load_table

    load_table("standard").save(tmp_path / "mine.json")
    assert (
        encode(source / "a.png", "-o", out, "--table", tmp_path / "mine.json", "--no-signature").exit_code
        == 0
    )
    assert (
        encode(source / "a.png", "-o", out / "b.jpg", "--model", "standard", "--no-signature").exit_code == 0
    )
    assert (out / "a.jpg").read_bytes() == (out / "b.jpg").read_bytes()


def test_collision_is_refused_by_name(source, out, photo):
    ImageOps.invert(photo).save(source / "a.bmp")
    result = encode(source, "-o", out)
    assert result.exit_code == 1
    assert (
        result.stderr
        == f"{source / 'a.png'}: {out / 'a.jpg'} is made from another picture: rename one of them\n"
    )
    assert psnr(opened(out / "a.jpg"), ImageOps.invert(photo)) > 25


def test_sources_are_never_overwritten(source):
    before = {name: (source / name).read_bytes() for name in files(source)}
    assert encode(source / "b.jpg", "-o", source / "b.jpg").exit_code == 2
    assert encode(source / "b.jpg", "-o", source).exit_code == 1
    assert encode(source / "a.png", source / "b.jpg", "-o", source).exit_code == 1
    assert encode(source / "a.png", "-o", source).exit_code == 1  # a.jpg is there now, and might be a source
    assert {name: (source / name).read_bytes() for name in before} == before


def test_skip_existing(source, out):
    assert encode(source / "a.png", "-o", out).exit_code == 0
    (out / "a.jpg").write_bytes(b"mine")
    result = encode(source, "-o", out, "--skip-existing")
    assert result.exit_code == 0
    assert result.stdout.startswith("3 encoded, 1 skipped, 0 failed")
    assert (out / "a.jpg").read_bytes() == b"mine"
    assert encode(source, "-o", out, "--skip-existing").exit_code == 3
    assert encode(source / "a.png", "-o", out / "a.jpg", "--skip-existing").exit_code == 3
    assert encode(source, "-o", out).exit_code == 0
    assert (out / "a.jpg").read_bytes() != b"mine"


def test_dry_run_writes_nothing_and_tells_the_size(source, out):
    dry = json.loads(encode(source, "-o", out, "--dry-run", "--json").stdout)
    assert not out.exists()
    wet = json.loads(encode(source, "-o", out, "--json").stdout)
    assert dry.pop("dry_run") is True
    assert wet.pop("dry_run") is False
    for key in ("encoded", "pixels", "bytes_before", "bytes_after", "bits_per_pixel"):
        assert dry[key] == wet[key]
    before = (source / "b.jpg").read_bytes()
    assert "nothing was written" in encode(source, "--in-place", "--dry-run").stdout
    assert (source / "b.jpg").read_bytes() == before


def test_only_if_smaller_takes_the_original_bytes(photo, tmp_path, out):
    photo.save(tmp_path / "small.jpg", quality=5)
    photo.save(tmp_path / "large.jpg", quality=100)
    Image.new("RGB", (9, 9)).save(tmp_path / "tiny.png")
    sources = [tmp_path / name for name in ("small.jpg", "large.jpg", "tiny.png")]
    result = encode(*sources, "-o", out, "--only-if-smaller", "--quality", 90)
    assert result.exit_code == 0
    assert result.stdout.startswith("1 encoded, 1 kept as they were, 1 skipped, 0 failed")
    assert files(out) == ["large.jpg", "small.jpg"]
    assert (out / "small.jpg").read_bytes() == (tmp_path / "small.jpg").read_bytes()
    assert (out / "large.jpg").stat().st_size < (tmp_path / "large.jpg").stat().st_size


def test_only_if_smaller_in_place_leaves_the_file(photo, tmp_path):
    photo.save(tmp_path / "small.jpg", quality=5)
    before = (tmp_path / "small.jpg").stat()
    assert encode(tmp_path, "--in-place", "--only-if-smaller", "--quality", 90).exit_code == 0
    assert (tmp_path / "small.jpg").stat().st_ino == before.st_ino
    assert encode(tmp_path, "--in-place", "--quality", 90).exit_code == 0
    assert (tmp_path / "small.jpg").stat().st_size > before.st_size


def test_in_place_is_for_jpeg(source, photo):
    png = (source / "a.png").read_bytes()
    assert encode(source, "--in-place", "--quality", 40).stdout.startswith("1 encoded, 0 failed")
    assert files(source) == ["a.png", "b.jpg", "sub/c d.webp", "sub/deep/e.tif"]
    assert (source / "a.png").read_bytes() == png
    result = encode(source / "a.png", "--in-place")
    assert (result.exit_code, result.stderr.count("is PNG")) == (1, 1)
    photo.save(source / "s.mpo", save_all=True, append_images=[photo])
    stereo = (source / "s.mpo").rename(source / "s.jpg").read_bytes()
    assert encode(source / "s.jpg", "--in-place").exit_code == 1
    assert (source / "s.jpg").read_bytes() == stereo


def test_in_place_keeps_links_and_permissions(source, tmp_path):
    (source / "b.jpg").chmod(0o640)
    (tmp_path / "link.jpg").symlink_to(source / "b.jpg")
    before = (source / "b.jpg").stat()
    assert encode(tmp_path / "link.jpg", "--in-place", "--quality", 40).exit_code == 0
    assert (tmp_path / "link.jpg").is_symlink()
    after = (source / "b.jpg").stat()
    assert after.st_size < before.st_size
    assert after.st_mode == before.st_mode


def test_links_are_followed_into_the_output(source, out, tmp_path):
    (source / "link.png").symlink_to(source / "a.png")
    (source / "again").symlink_to(source)
    (source / "broken.png").symlink_to("nothing")
    result = encode(source, "-o", out)
    assert result.exit_code == 1
    assert result.stderr == f"{source / 'broken.png'}: No such file or directory\n"
    assert files(out) == ["a.jpg", "b.jpg", "link.jpg", "sub/c d.jpg", "sub/deep/e.jpg"]
    assert not (out / "link.jpg").is_symlink()


# --- streams


def test_standard_input_to_standard_output(source, out):
    assert encode(source / "a.png", "-o", out).exit_code == 0
    expected = (out / "a.jpg").read_bytes()
    data = (source / "a.png").read_bytes()
    assert encode("-", input=data).stdout_bytes == expected
    assert encode("-", "-o", "-", input=data).stdout_bytes == expected
    assert encode(source / "a.png", "-o", "-").stdout_bytes == expected
    assert encode("-", "-o", out / "b.jpg", input=data).exit_code == 0
    assert (out / "b.jpg").read_bytes() == expected


def test_standard_input_that_is_no_picture():
    result = encode("-", input=b"text")
    assert (result.exit_code, result.stdout_bytes) == (1, b"")
    assert result.stderr.startswith("-: not a picture")


def test_only_if_smaller_on_streams(photo):
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", quality=5)
    result = encode("-", "--only-if-smaller", "--quality", 90, input=buffer.getvalue())
    assert result.stdout_bytes == buffer.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_standard_output(source, unbuffered):
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [*COMMAND, source / "a.png", "-o", "-"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert b"No space left" in done.stderr


# --- wrong usage: told before any picture is touched


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("a.png", "where to?"),
        ("none.png -o out", "does not exist"),
        ("a.png -o out --model nope", "standard"),
        ("a.png -o out --model standard --table t.json", "give one"),
        ("a.png -o out --table t.json", "t.json is not a table"),
        ("a.png -o out --quality 101", "101"),
        ("a.png -o out --subsampling 4:2:1", "4:2:1"),
        ("a.png -o out --hardness 0", "hardness"),
        ("a.png -o out --hardness 5 --quantizer nearest", "quantizer"),
        ("a.png -o out --seed -1", "seed"),
        ("a.png -o out --background nocolour", "nocolour"),
        ("a.png -o out --strip --only-if-smaller", "--strip"),
        ("a.png -o out --jobs 0", "jobs"),
        ("a.png -o out --jobs 1025", "jobs"),
        ("a.png -o out --target-bytes 0", "target-bytes"),
        ("a.png -o out --target-bpp 0", "target-bpp"),
        ("a.png -o out --target-bpp 1 --target-bytes 999", "give one"),
        ("a.png -o out --target-bpp 1 --quality 30", "leave it out"),
        ("a.png -o out --keep top1", "--network and --keep go together"),
        ("a.png -o out --network x.py:net", "--network and --keep go together"),
        ("a.png -o out --network x.py:net --target-bpp 1", "give one"),
        ("a.png -o out --weights b.jpg", "--weights is of one network: 0"),
        ("a.png -o out.png", "no name for a JPEG"),
        ("a.png b.jpg -o out.jpg", "folder"),
        (". -o out.jpg", "folder"),
        (". -o -", "folder"),
        ("a.png -o - --json", "--json"),
        ("- -o .", "name"),
        (". --in-place -o out", "--in-place"),
        (". --in-place --skip-existing", "--in-place"),
        ("- --in-place", "--in-place"),
        ("-o out", "PATH"),
    ],
)
def test_wrong_usage(source, monkeypatch, arguments, message):
    monkeypatch.chdir(source)
    (source / "t.json").write_text("no table")
    before = {name: (source / name).read_bytes() for name in files(source)}
    result = encode(*arguments.split())
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert {name: (source / name).read_bytes() for name in files(source)} == before


def test_compiling_is_announced(source, out, monkeypatch):
    from dnnjpeg.codec import encoder

    assert "compiling" not in encode(source, "-o", out).stderr
    monkeypatch.setattr(encoder, "is_warm", lambda: False)
    result = encode(source, "-o", out)
    assert result.exit_code == 0
    assert result.stderr.startswith("compiling the codec")


def test_nothing_to_do(tmp_path, out):
    (tmp_path / "empty").mkdir()
    result = encode(tmp_path / "empty", "-o", out)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"no pictures in {tmp_path / 'empty'}\n"
    assert not out.exists()


# --- targets


NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    preprocess = dict(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    def forward(self, x):
        logits = nn.functional.avg_pool2d(x, 8).flatten(1) @ torch.linspace(-9, 9, 480).reshape(48, 10).sin()
        return LOGITS

def net():
    return Net()
"""


@pytest.fixture
def network(tmp_path) -> str:
    pytest.importorskip("torch")
    (tmp_path / "nets.py").write_text(NETWORK.replace("LOGITS", "logits"))
    return f"{tmp_path / 'nets.py'}:net"


def test_network_and_rule(source, out, network):
    from dnnjpeg import inspect
    from dnnjpeg.models import load_network

    result = encode(source, "-o", out, "--network", network, "--keep", "top1", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    digest = load_network(network).digest
    assert (report["encoded"], report["failed"], report["keep"]) == (4, 0, "top1")
    assert report["networks"] == [{"name": "net", "spec": network, "digest": digest}]
    assert "quality" not in report
    assert files(out) == ["a.jpg", "b.jpg", "sub/c d.jpg", "sub/deep/e.jpg"]
    for name, picture in zip(files(out), report["pictures"], strict=True):
        data = (out / name).read_bytes()
        assert Path(picture["source"]).stem == Path(name).stem
        assert picture["bytes"] == len(data)
        made = inspect(data)
        assert (made.table, made.quality) == ("standard", picture["quality"])
        assert made.comment == f"dnnjpeg keeps top1 of net {digest} at quality {picture['quality']}"
    loose, tight = (
        json.loads(encode(source, "-o", out, "--network", network, "--keep", keep, "--json").stdout)
        for keep in ("divergence=1", "divergence=0.0001")
    )
    assert loose["bytes_after"] < tight["bytes_after"]
    for arguments in (["--no-signature"], ["--progressive"], ["--subsampling", "4:2:2"], ["--jobs", "2"]):
        result = encode(source, "-o", out, "--network", network, "--keep", "top1", *arguments)
        assert result.stdout.startswith("4 encoded, 0 failed")
    encode(source / "a.png", "-o", out, "--network", network, "--keep", "top1", "--no-signature")
    assert inspect((out / "a.jpg").read_bytes()).comment is None


def test_network_from_stream_to_stream_and_in_place(source, out, network):
    arguments = ["--network", network, "--keep", "top1"]
    assert encode(source / "b.jpg", "-o", out, *arguments).exit_code == 0
    expected = (out / "b.jpg").read_bytes()
    assert encode("-", *arguments, input=(source / "b.jpg").read_bytes()).stdout_bytes == expected
    assert encode(source / "b.jpg", "--in-place", *arguments).exit_code == 0
    assert (source / "b.jpg").read_bytes() == expected


def test_missed_target_is_a_failure(source, out, tmp_path, network):
    before = (source / "b.jpg").read_bytes()
    (tmp_path / "strict.py").write_text(NETWORK.replace("LOGITS", "(10000 * logits).sin()"))
    strict = f"{tmp_path / 'strict.py'}:net"
    result = encode(source / "b.jpg", "--in-place", "--network", strict, "--keep", "divergence=0.001")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{source / 'b.jpg'}: is read differently even at quality 100, ")
    assert (source / "b.jpg").read_bytes() == before
    result = encode(source, "-o", out, "--target-bytes", 300)
    assert result.exit_code == 1
    assert result.stderr.count(": is too large even at quality 1, ") == 4
    assert not out.exists()


def test_target_bytes_and_bpp(source, out):
    report = json.loads(encode(source, "-o", out, "--target-bytes", 3000, "--json").stdout)
    assert (report["encoded"], report["target_bytes"]) == (4, 3000)
    assert all(2500 < (out / name).stat().st_size <= 3000 for name in files(out))
    assert [picture["bytes"] for picture in report["pictures"]] == [
        (out / name).stat().st_size for name in files(out)
    ]
    report = json.loads(encode(source, "-o", out, "--target-bpp", 1, "--json", "--progressive").stdout)
    assert 0.8 < report["bits_per_pixel"] <= 1 == report["target_bpp"]
    assert all(opened(out / name).info["progressive"] for name in files(out))


@pytest.mark.parametrize(
    ("spec", "keep", "message"),
    [
        ("nets.py:net", "top3", "keep is 'top3', expected top1, top5, or divergence=X"),
        ("nets.py:none", "top1", "net"),
        ("missing.py:net", "top1", "missing.py"),
        ("nets", "top1", "nets"),
        ("nan.py:net", "top1", "NaN"),
    ],
)
def test_wrong_networks(source, out, network, tmp_path, monkeypatch, spec, keep, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nan.py").write_text(NETWORK.replace("LOGITS", "logits / 0"))
    result = encode(source, "-o", out, "--network", spec, "--keep", keep)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not out.exists()


def test_networks_need_torch(source, out):
    code = "import sys; sys.modules['torch'] = None\n" + COMMAND[-2]
    command = [*COMMAND[:-2], code, "encode", source, "-o", out]
    done = subprocess.run(
        [*command, "--network", "x.py:net", "--keep", "top1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'dnnjpeg[learn]'" in done.stderr
    assert subprocess.run([*command, "--target-bpp", "2"], capture_output=True, check=False).returncode == 0


# --- failures: one line each, and the run goes on


def test_broken_files_do_not_stop_the_run(source, out):
    (source / "bad.jpg").write_bytes(b"text")
    (source / "cut.jpg").write_bytes((source / "b.jpg").read_bytes()[:2000])
    (source / "sub" / "empty.png").touch()
    result = encode(source, "-o", out)
    assert result.exit_code == 1
    assert [line.split(": ")[0] for line in result.stderr.splitlines()] == [
        str(source / name) for name in ("bad.jpg", "cut.jpg", "sub/empty.png")
    ]
    assert result.stdout.startswith("4 encoded, 3 failed")
    assert files(out) == ["a.jpg", "b.jpg", "sub/c d.jpg", "sub/deep/e.jpg"]


def test_summary_for_machines(source, out):
    (source / "bad.jpg").write_bytes(b"text")
    result = encode(source, "-o", out, "--json", "--quality", 60)
    summary = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (summary["encoded"], summary["failed"], summary["kept"], summary["skipped"]) == (4, 1, 0, 0)
    assert summary["pixels"] == 4 * 160 * 120
    assert summary["bytes_after"] == sum((out / name).stat().st_size for name in files(out))
    assert summary["bits_per_pixel"] == pytest.approx(
        8 * summary["bytes_after"] / summary["pixels"], abs=1e-4
    )
    assert (summary["table"], summary["quality"]) == ("standard", 60)
    assert [failure["source"] for failure in summary["failures"]] == [str(source / "bad.jpg")]


def test_progress_is_shown_on_a_terminal_only(source, out):
    terminal, inner = os.openpty()
    termios.tcsetwinsize(inner, (24, 80))
    done = subprocess.run([*COMMAND, source, "-o", out], stdout=subprocess.PIPE, stderr=inner, check=True)
    os.close(inner)
    shown = b""
    with suppress(OSError):  # the end of what a terminal shows
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    assert b"/4 " in shown
    assert done.stdout.startswith(b"4 encoded")
    assert subprocess.run([*COMMAND, source, "-o", out], capture_output=True, check=True).stderr == b""


def test_malformed_folder(data_dir, tmp_path, out):
    result = encode(data_dir / "malformed", "-o", out)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert all(Path(line.split(": ")[0]).exists() for line in lines)
    assert len(lines) + len(files(out)) == len(list((data_dir / "malformed").iterdir()))
    for name in files(out):
        opened(out / name)
    shutil.copytree(data_dir / "malformed", tmp_path / "copy")
    failed = json.loads(encode(tmp_path / "copy", "--in-place", "--json").stdout)["failures"]
    for failure in failed:
        name = Path(failure["source"]).name
        assert (tmp_path / "copy" / name).read_bytes() == (data_dir / "malformed" / name).read_bytes()
    assert len(files(tmp_path / "copy")) == len(list((data_dir / "malformed").iterdir()))


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("only root, and not everywhere, may mount the small file system this needs")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk(small_disk, photo, tmp_path):
    photo.save(small_disk / "a.jpg", quality=40)
    before = (small_disk / "a.jpg").read_bytes()
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    (small_disk / "ballast").write_bytes(bytes(free - 4096))
    result = encode(small_disk / "a.jpg", "--in-place", "--quality", 100)
    assert result.exit_code == 1
    assert result.stderr == f"{small_disk / 'a.jpg'}: No space left on device\n"
    assert (small_disk / "a.jpg").read_bytes() == before
    assert sorted(path.name for path in small_disk.iterdir()) == ["a.jpg", "ballast"]
    photo.save(tmp_path / "b.png")
    result = encode(tmp_path / "b.png", "-o", small_disk, "--quality", 100)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert not (small_disk / "b.jpg").exists()


def test_read_only_folder(request, source, tmp_path):
    if os.geteuid() == 0:
        folder = request.getfixturevalue("small_disk")
        shutil.copy(source / "b.jpg", folder / "b.jpg")
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    else:
        folder = tmp_path / "locked"
        folder.mkdir()
        shutil.copy(source / "b.jpg", folder / "b.jpg")
        folder.chmod(0o555)
    for arguments in (
        [folder, "--in-place"],
        [source / "a.png", "-o", folder],
        [source, "-o", folder / "new"],
    ):
        result = encode(*arguments)
        assert result.exit_code == 1
        assert result.stdout.startswith("0 encoded")
        for line in result.stderr.splitlines():
            assert "Read-only file system" in line or "Permission denied" in line
    assert (folder / "b.jpg").read_bytes() == (source / "b.jpg").read_bytes()
    assert files(folder) == ["b.jpg"]


# --- names


def test_names_of_any_bytes(photo, tmp_path, out):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in (b"caf\xe9 x.png", b"two\nlines.png", "Füße 日本.png".encode(), b"-o.png"):
        photo.save(folder / os.fsdecode(name))
    (folder / os.fsdecode(b"bad\xff\n.jpg")).write_bytes(b"text")
    done = subprocess.run([*COMMAND, folder, "-o", out], capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.decode("ascii").count("\n") == 1
    assert b"/bad\\udcff\\n.jpg: not a picture" in done.stderr
    expected = {b"caf\xe9 x.jpg", b"two\nlines.jpg", "Füße 日本.jpg".encode(), b"-o.jpg"}
    assert set(os.listdir(os.fsencode(out))) == expected  # noqa: PTH208
    summary = json.loads(encode(folder, "-o", out, "--json").stdout)
    assert summary["failures"][0]["source"] == os.fsdecode(os.fsencode(folder) + b"/bad\xff\n.jpg")
    name = os.fsencode(folder) + b"/caf\xe9 x.png"
    assert (
        subprocess.run([*COMMAND, name, "-o", out / "new"], capture_output=True, check=False).returncode == 0
    )
    assert os.listdir(os.fsencode(out / "new")) == [b"caf\xe9 x.jpg"]  # noqa: PTH208


# --- pixels and metadata, from file to file


def test_metadata_is_kept_or_stripped(photo, tmp_path, out):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo.save(
        tmp_path / "a.jpg",
        quality=95,
        exif=exif,
        icc_profile=profile,
        xmp=b"<x/>",
        comment=b"hello",
        dpi=(300, 300),
    )
    assert encode(tmp_path / "a.jpg", "-o", out).exit_code == 0
    with Image.open(out / "a.jpg") as kept, Image.open(tmp_path / "a.jpg") as before:
        for key in ("exif", "icc_profile", "xmp", "comment", "dpi"):
            assert kept.info[key] == before.info[key]
        assert kept.size == before.size
        assert psnr(kept, before) > 25
    assert encode(tmp_path / "a.jpg", "-o", out, "--strip").exit_code == 0
    with Image.open(out / "a.jpg") as bare, Image.open(tmp_path / "a.jpg") as before:
        assert not {"exif", "xmp", "comment"} & set(bare.info)
        assert bare.size == before.size[::-1]
        assert psnr(bare, before.transpose(Image.Transpose.ROTATE_270)) > 25


def test_viewers_see_the_same_side_up(photo, tmp_path, out):
    exif = Image.Exif()
    exif[0x0112] = 8
    photo.save(tmp_path / "a.jpg", quality=95, exif=exif)
    assert encode(tmp_path / "a.jpg", "-o", out / "keep").exit_code == 0
    assert encode(tmp_path / "a.jpg", "-o", out / "strip", "--strip").exit_code == 0
    seen = [
        cv2.imread(str(path))
        for path in (tmp_path / "a.jpg", out / "keep" / "a.jpg", out / "strip" / "a.jpg")
    ]
    assert cv2.PSNR(seen[0], seen[1]) > 25
    assert cv2.PSNR(seen[0], seen[2]) > 25


def test_unusual_pixels_come_out_right_or_not_at_all(photo, tmp_path, out):
    folder = tmp_path / "in"
    folder.mkdir()
    grey = np.asarray(photo.convert("L"))
    expected = {
        "palette": photo.quantize(64).convert("RGB"),
        "sixteen": photo.convert("L"),
        "opaque": photo,
        "bilevel": photo.convert("1"),
        "cmyk": photo,
    }
    photo.quantize(64).save(folder / "palette.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "sixteen.png")
    photo.convert("RGBA").save(folder / "opaque.png")
    photo.convert("1").save(folder / "bilevel.png")
    photo.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    clear = photo.copy()
    clear.putalpha(100)
    clear.save(folder / "transparent.png")
    photo.save(folder / "animated.gif", save_all=True, append_images=[ImageOps.invert(photo)])
    Image.fromarray(grey.astype(np.float32)).save(folder / "float.tif")
    result = encode(folder, "-o", out, "--quality", 90)
    assert result.exit_code == 1
    assert [line.split(": ")[1][:18] for line in result.stderr.splitlines()] == [
        "holds 2 frames and", "has pixels of mode", "has transparent pi"
    ]  # fmt: skip
    assert files(out) == sorted(f"{name}.jpg" for name in expected)
    for name, image in expected.items():
        assert psnr(opened(out / f"{name}.jpg"), image) > 18, name
        b, g, r = cv2.split(cv2.imread(str(out / f"{name}.jpg")))  # another reader: not inverted, not swapped
        assert psnr(Image.fromarray(cv2.merge([r, g, b])), image) > 18, name
    assert encode(folder / "transparent.png", "-o", out, "--background", "#ff0000").exit_code == 0
    on_red = Image.composite(photo, Image.new("RGB", photo.size, "red"), Image.new("L", photo.size, 100))
    assert psnr(opened(out / "transparent.jpg"), on_red) > 25


def test_big_pictures_raise_no_warning(photo, tmp_path, out, monkeypatch):
    monkeypatch.setattr(
        Image, "MAX_IMAGE_PIXELS", 160 * 120 - 1
    )  # Pillow warns from here, and refuses from twice that
    photo.save(tmp_path / "a.png")
    photo.resize((320, 240)).save(tmp_path / "b.png")
    result = encode(tmp_path / "a.png", tmp_path / "b.png", "-o", out)
    assert result.exit_code == 1
    assert files(out) == ["a.jpg"]
    assert result.stderr.startswith(f"{tmp_path / 'b.png'}: ")
    assert len(result.stderr.splitlines()) == 1


# --- killed and interrupted


@pytest.fixture
def hundred(tmp_path, photo) -> Path:
    folder = tmp_path / "hundred"
    folder.mkdir()
    picture = np.asarray(photo.resize((320, 240)))
    for i in range(100):
        Image.fromarray(np.roll(picture, 3 * i, axis=1)).save(folder / f"{i:02}.jpg", quality=95)
    return folder


def wait_for(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.001)


def test_kill_in_the_middle_of_an_in_place_job(hundred, out):
    assert encode(hundred, "-o", out, "--quality", 30).exit_code == 0
    names = files(hundred)
    old = {name: (hundred / name).read_bytes() for name in names}
    new = {name: (out / name).read_bytes() for name in names}
    for wanted in (1, 30):
        for name in names:
            (hundred / name).write_bytes(old[name])
        process = subprocess.Popen([*COMMAND, hundred, "--in-place", "--quality", "30", "--jobs", "2"])
        size = len(old[names[wanted]])
        wait_for(lambda name=names[wanted], size=size: (hundred / name).stat().st_size != size, process)
        process.kill()
        process.wait()
        now = {name: (hundred / name).read_bytes() for name in names}
        assert all(now[name] in (old[name], new[name]) for name in names)
        assert wanted // 2 < sum(now[name] == new[name] for name in names) < 100
    (hundred / f".0123456789abcdef{TEMPORARY_SUFFIX}").write_bytes(b"left by a killed run")
    result = encode(hundred, "--in-place", "--quality", 30)
    assert result.exit_code == 0
    assert result.stdout.startswith("100 encoded, 0 failed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interruption_ends_with_whole_files_and_a_summary(hundred, out, number):
    process = subprocess.Popen([*COMMAND, hundred, "-o", out, "--jobs", "2"], stdout=subprocess.PIPE)
    wait_for(lambda: (out / "03.jpg").exists(), process)
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    done = files(out)
    assert 3 < len(done) < 100
    assert stdout.decode().startswith(f"{len(done)} encoded, 0 failed")
    for name in done:
        opened(out / name)
    assert encode(hundred, "-o", out, "--skip-existing").stdout.startswith(
        f"{100 - len(done)} encoded, {len(done)} skipped"
    )
