"""`dnnjpeg encode` to a target: networks and limits of size."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from encoding import COMMAND, encode, files, opened
from PIL import Image

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
    from dnnjpeg.networks.load import load_network

    result = encode(source, "-o", out, "--network", network, "--keep", "top1", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    digest = load_network(network).digest
    assert (report["encoded"], report["failed"], report["keep"]) == (4, 0, "top1")
    assert report["networks"] == [
        {"name": "net", "spec": network, "digest": digest, "task": "classification"}
    ]
    assert "quality" not in report
    assert files(out) == ["a.jpg", "b.jpg", "sub/c d.jpg", "sub/deep/e.jpg"]
    for name, picture in zip(files(out), report["pictures"], strict=True):
        data = (out / name).read_bytes()
        assert Path(picture["source"]).stem == Path(name).stem
        assert picture["bytes"] == len(data)
        made = inspect(data)
        assert (made.table, made.quality) == ("universal", picture["quality"])
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
    arguments = ["--network", strict, "--keep", "divergence=0.001"]
    result = encode(source / "b.jpg", "--in-place", *arguments, "--pixels")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{source / 'b.jpg'}: is read differently even at quality 100, ")
    assert (source / "b.jpg").read_bytes() == before
    # its own coefficients lose nothing at quality 100
    assert encode(source / "b.jpg", "-o", tmp_path / "own", *arguments).exit_code == 0
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
        (
            "nets.py:net",
            "top3",
            "keep is 'top3', expected same, distance=X, accuracy=X% or price=X",
        ),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--quality", "50", "-o", "out"], "each picture gets its own quality: leave out --quality"),
        (["--adaptive", "-o", "out"], "each picture gets its own quality: leave out --adaptive"),
        ([], "where to?"),
        (["--in-place", "-o", "out"], "--in-place takes"),
    ],
)
def test_wrong_usage_is_found_before_networks_are_loaded(source, monkeypatch, arguments, message):
    pytest.importorskip("torch")

    def load(*_, **__):
        raise AssertionError

    monkeypatch.setattr("dnnjpeg.networks.load.load_network", load)
    result = encode(source, "--network", "x.py:net", "--keep", "top1", *arguments)
    assert result.exit_code == 2 and message in result.stderr


@pytest.mark.parametrize("option", ["--hardness=3", "--seed=1"])
def test_pruning_has_nothing_to_sample(source, out, network, option):
    where = [source, "-o", out, "--network", network, "--keep", "top1", "--prune"]
    result = encode(*where, option)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "prune rounds to the nearest: leave out" in result.stderr
    assert not out.exists()
    assert encode(*where, "--hardness=inf", "--seed=0").exit_code == 0


def test_networks_need_torch(source, out):
    code = "import sys; sys.modules['torch'] = None\n" + COMMAND[-2]
    command = [*COMMAND[:-2], code, "encode", source, "-o", out]
    done = subprocess.run(
        [*command, "--network", "x.py:net", "--keep", "top1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'dnnjpeg[learn]'" in done.stderr
    assert subprocess.run([*command, "--target-bpp", "2"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_interruption_with_a_slow_network(source, out, tmp_path, network):
    """The first pictures agree at once, the last needs many readings of half a second."""
    wait = "time.sleep(0.5)\n        print('r', end='', file=open(__file__ + '.read', 'a'))"
    slow = NETWORK.replace("LOGITS", "logits").replace("        logits", f"        {wait}\n        logits")
    (tmp_path / "nets.py").write_text(f"import time\n{slow}")
    for i in range(40):
        (source / f"{i:02}.png").write_bytes((source / "a.png").read_bytes())
    arguments = [source, "-o", out, "--network", network, "--keep", "divergence=1e-5", "--jobs", "1"]
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    read = tmp_path / "nets.py.read"
    while not read.exists() or read.stat().st_size < 6:  # the first are tried before the run
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - sent < 5
    assert process.returncode == 130
    done = files(out) if out.exists() else []
    assert f"interrupted: {len(done)} of 44 done; the same command with --skip-existing goes on" in stderr
    for name in done:
        opened(out / name)


def test_strip_with_a_target(source, out, network):
    """Of a JPEG source, too, whose files are made of its coefficients."""
    exif = Image.Exif()
    exif[0x010F] = "SECRETMAKER"
    opened(source / "b.jpg").save(source / "b.jpg", exif=exif, comment=b"private", quality=95)
    for target in (["--target-bytes", 4000], ["--target-bpp", 2], ["--network", network, "--keep", "same"]):
        for options in ([], ["--pixels"]):
            assert encode(source / "b.jpg", "-o", out, *target, *options).exit_code == 0
            assert b"SECRETMAKER" in (out / "b.jpg").read_bytes()
            assert encode(source / "b.jpg", "-o", out, *target, *options, "--strip").exit_code == 0
            data = (out / "b.jpg").read_bytes()
            assert b"SECRETMAKER" not in data and b"private" not in data


@pytest.mark.parametrize("options", [("--target-bytes", 4000), ("--target-bytes", 10**6), ("--keep", "same")])
def test_strip_in_place_with_a_target_never_grows(source, network, options):
    """It drops the metadata, and a second run changes nothing."""
    path = source / "b.jpg"
    exif = Image.Exif()
    exif[0x010F] = "SECRETMAKER"
    opened(path).save(path, exif=exif, quality=95)
    asked = ("--network", network) if "--keep" in options else ()
    sizes = [path.stat().st_size]
    for _ in range(3):
        assert encode(path, "--in-place", "--strip", *asked, *options).exit_code == 0
        sizes.append(path.stat().st_size)
        assert b"SECRETMAKER" not in path.read_bytes()
    assert sizes[0] > sizes[1] == sizes[2] == sizes[3]
    report = json.loads(encode(path, "--in-place", "--strip", *asked, *options, "--json").stdout)
    assert (report["encoded"], report["copied"]) == (0, 1)


def test_skip_existing_asks_for_the_same_criterion(source, out, network):
    def run(keep: str) -> dict[str, int]:
        command = ("--network", network, "--keep", keep, "--skip-existing", "--json")
        report = json.loads(encode(source, "-o", out, *command).stdout)
        return {name: report[name] for name in ("encoded", "skipped")}

    assert run("same") == {"encoded": 4, "skipped": 0}
    assert run("same") == {"encoded": 0, "skipped": 4}
    assert run("distance=0.001") == {"encoded": 4, "skipped": 0}
    limit = max((out / name).stat().st_size for name in files(out)) - 1
    assert encode(source, "-o", out, "--target-bytes", limit, "--skip-existing").exit_code == 0
    assert all((out / name).stat().st_size <= limit for name in files(out))
