"""`dnnjpeg encode` as its users meet it: what is written and where, streams, wrong usage."""

import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from encoding import COMMAND, encode, files, opened, psnr
from PIL import Image, ImageOps

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


def test_a_list_of_files(source, out, tmp_path):
    (tmp_path / "list.txt").write_bytes(os.fsencode(f"{source / 'sub'}\r\n\n{source / 'a.png'}"))
    assert encode(f"@{tmp_path / 'list.txt'}", source / "b.jpg", "-o", out).exit_code == 0
    assert files(out) == ["a.jpg", "b.jpg", "c d.jpg", "deep/e.jpg"]


def test_a_list_that_is_wrong(source, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text(f"{source / 'a.png'}\nmissing.png\n")
    result = encode("@list.txt", "-o", out)
    assert result.exit_code == 2
    assert "list.txt, line 2: Path 'missing.png' does not exist." in result.stderr
    Path("empty.txt").touch()
    for name, message in (("none.txt", "cannot be read: No such file"), ("empty.txt", "names no picture")):
        result = encode(f"@{name}", "-o", out)
        assert result.exit_code == 2
        assert message in result.stderr
    Path("@list.txt").mkdir()  # what is there goes first
    (Path("@list.txt") / "a.png").write_bytes((source / "a.png").read_bytes())
    assert encode("@list.txt", "-o", out).exit_code == 0
    assert files(out) == ["a.jpg"]


def test_one_file_to_a_file_name(source, tmp_path):
    target = tmp_path / "new" / "x.jpeg"
    assert encode(source / "a.png", "-o", target).exit_code == 0
    assert opened(target).format == "JPEG"


def test_options_reach_the_codec(source, out):
    sizes = {}
    for options in ("", "--quality 30", "--quality 30.5", "--subsampling 4:4:4", "--progressive"):
        how = ("--table", "standard", *options.split())
        assert encode(source / "a.png", "-o", out / "x.jpg", *how).exit_code == 0
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
    from dnnjpeg.table.library import load_table

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
    result = encode(source, "-o", out, "--skip-existing")
    assert result.exit_code == 0
    assert result.stdout.startswith("3 encoded, 1 skipped, 0 failed")
    assert encode(source, "-o", out, "--skip-existing").exit_code == 3
    assert encode(source / "a.png", "-o", out / "a.jpg", "--skip-existing").exit_code == 3
    # of another quality, or of nobody knows whom
    result = encode(source, "-o", out, "--skip-existing", "--quality", 60)
    assert result.stdout.startswith("4 encoded, 0 failed")
    (out / "a.jpg").write_bytes(b"mine")
    result = encode(source, "-o", out, "--skip-existing", "--quality", 60)
    assert result.stdout.startswith("1 encoded, 3 skipped, 0 failed")
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
    result = encode(*sources, "-o", out, "--only-if-smaller", "--quality", 90, "--pixels")
    assert result.exit_code == 0
    assert result.stdout.startswith("1 encoded, 1 left as they were, 1 skipped, 0 failed")
    assert files(out) == ["large.jpg", "small.jpg"]
    assert (out / "small.jpg").read_bytes() == (tmp_path / "small.jpg").read_bytes()
    assert (out / "large.jpg").stat().st_size < (tmp_path / "large.jpg").stat().st_size


def test_only_if_smaller_in_place_leaves_the_file(photo, tmp_path):
    photo.save(tmp_path / "small.jpg", quality=5)
    before = (tmp_path / "small.jpg").stat()
    assert encode(tmp_path, "--in-place", "--only-if-smaller", "--quality", 90, "--pixels").exit_code == 0
    assert (tmp_path / "small.jpg").stat().st_ino == before.st_ino
    result = encode(tmp_path, "--in-place", "--quality", 90, "--pixels")
    assert result.stdout.startswith("0 encoded, 1 left as they were, 0 failed")
    assert (tmp_path / "small.jpg").stat().st_ino == before.st_ino
    assert encode(tmp_path, "--in-place", "--quality", 90, "--pixels", "--always").exit_code == 0
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
    result = encode("-", "--only-if-smaller", "--quality", 90, "--pixels", input=buffer.getvalue())
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
        ("a.png -o out --model=", "no table is named ''"),
        ("a.png -o out --model standard --table t.json", "give one"),
        ("a.png -o out --table t.json", "t.json is not a table"),
        ("a.png -o out --quality 101", "101"),
        ("a.png -o out --subsampling 4:2:1", "4:2:1"),
        ("a.png -o out --hardness 0", "hardness"),
        ("a.png -o out --hardness nan", "hardness"),
        ("a.png -o out --seed -1", "seed"),
        ("a.png -o out --background nocolour", "nocolour"),
        ("a.png -o out --strip --only-if-smaller", "--strip"),
        ("a.png -o out --jobs 0", "jobs"),
        ("a.png -o out --jobs 1025", "jobs"),
        ("a.png -o out --target-bytes 0", "target-bytes"),
        ("a.png -o out --target-bpp 0", "target-bpp"),
        ("a.png -o out --target-bpp nan", "target-bpp"),
        ("a.png -o out --target-bpp inf", "target-bpp"),
        ("a.png -o out --target-bpp 1 --target-bytes 999", "give one"),
        ("a.png -o out --target-bpp 1 --quality 30", "leave out --quality"),
        ("a.png -o out --target-bpp 1 --adaptive", "leave out --adaptive"),
        ("a.png -o out --keep top1", "--network and --keep go together"),
        ("a.png -o out --network x.py:net", "--network and --keep go together"),
        ("a.png -o out --network x.py:net --target-bpp 1", "give one"),
        ("a.png -o out --weights b.jpg", "--weights needs exactly one --network, 0"),
        ("a.png -o out.png", "-o out.png: expected a folder, or a name that ends in .jpg"),
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
    from dnnjpeg import encoder

    assert "compiling" not in encode(source, "-o", out).stderr
    monkeypatch.setattr(encoder, "is_warm", lambda: False)
    result = encode(source, "-o", out)
    assert result.exit_code == 0
    assert result.stderr.startswith("compiling the codec")


@pytest.mark.parametrize(
    ("name", "options", "is_due"),
    [("b.jpg", (), True), ("b.jpg", ("--pixels",), False), ("a.png", (), False)],
)
def test_compiling_what_reads_coefficients_is_announced(source, out, monkeypatch, name, options, is_due):
    from dnnjpeg import transcoder

    monkeypatch.setattr(transcoder, "is_warm", lambda: False)
    result = encode(source / name, "-o", out, *options)
    assert result.exit_code == 0
    assert ("compiling the codec" in result.stderr) == is_due


def test_one_jpeg_file_compiles_what_it_needs_alone(source, out, tmp_path):
    """Not what reads pixels or progressive scans, nor what writes them, nor what draws at random."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    command = [*COMMAND, source / "b.jpg", "-o", out]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    compiled = sorted(path.name.partition("-")[0] for path in (tmp_path / "cache").rglob("*.nbc"))
    assert compiled == ["lookup._fill_all", "plane_rows.encode_plane_rows"]


def test_nothing_to_do(tmp_path, out):
    (tmp_path / "empty").mkdir()
    result = encode(tmp_path / "empty", "-o", out)
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == f"no pictures in {tmp_path / 'empty'}\n"
    assert not out.exists()


@pytest.mark.parametrize("arguments", [("--in-place",), ("-o", "new/out")])
def test_files_are_on_the_disk_unless_told_otherwise(source, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    synchronized = []
    monkeypatch.setattr(os, "fsync", synchronized.append)
    assert encode(source / "b.jpg", *arguments, "--pixels", "--no-fsync").exit_code == 0
    assert synchronized == []
    assert encode(source / "b.jpg", *arguments, "--pixels", "--quality", 60).exit_code == 0
    assert len(synchronized) == 2  # file and folder


def test_keep_tree(photo, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("big/0/a.png", "big/1/a.png"):
        Path(name).parent.mkdir(parents=True)
        photo.save(name)
    refused = encode("big/0", "big/1", "-o", out)
    assert refused.exit_code == 1 and "(--keep-tree)" in refused.stderr
    assert encode("big/0", "big/1", "-o", out, "--keep-tree").exit_code == 0
    assert {"big/0/a.jpg", "big/1/a.jpg"} < set(files(out))
    for arguments in (["big/0", "--in-place"], ["big/0/a.png", "-o", "x.jpg"]):
        assert encode(*arguments, "--keep-tree").exit_code == 2
