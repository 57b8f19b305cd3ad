"""Encoding to a target, files on disk: what is written, and what a failure leaves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drawing import draw
from PIL import Image

from dnnjpeg import encode, encode_to_target, inspect
from dnnjpeg.jobs.run import run
from dnnjpeg.jobs.tasks import FileOptions, FileTask
from dnnjpeg.table.library import load_table

PICTURES = [draw(72, 56, seed) for seed in range(5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    return tmp_path


def recipe(**target: Any) -> FileOptions:
    return FileOptions(load_table("standard"), 75, target=target)


def tasks(folder: Path) -> list[FileTask]:
    return [FileTask(path, folder / "out" / f"{path.stem}.jpg") for path in sorted(folder.glob("*.png"))]


def test_files_are_those_of_the_library(network, folder, monkeypatch):
    net = network("one")
    expected = encode_to_target(PICTURES, "standard", networks=[net], keep="top1")
    for group in (2, 50):  # pictures that are encoded together
        monkeypatch.setattr("dnnjpeg.jobs.run.GROUP", group)
        results = list(run(tasks(folder), recipe(networks=[net], keep="top1"), 2))
        for result, one in zip(results, expected, strict=True):
            assert result.status == "encoded"
            # batches of other pictures change the last digits of what is read
            divergence = pytest.approx(one.divergence, rel=1e-4)
            assert result.found == replace(one, data=b"", divergence=divergence)
            assert (folder / "out" / f"{result.source.stem}.jpg").read_bytes() == one.data
            assert result.bytes_after == len(one.data)


def test_a_failure_costs_its_own_picture_only(network, folder):
    Image.new("RGB", (72, 56)).save(folder / "2.png")
    (folder / "3.png").write_bytes(b"text")
    results = list(run(tasks(folder), recipe(networks=[network("no_black")], keep="top1"), 2))
    assert [result.status for result in results] == ["encoded", "encoded", "failed", "failed", "encoded"]
    assert "no_black returns NaN" in results[2].reason
    assert "not a picture" in results[3].reason
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["0.jpg", "1.jpg", "4.jpg"]


def test_a_missed_target_writes_nothing(network, folder):
    for target, message in (
        (
            {"networks": [network("strict")], "keep": "divergence=0.001"},
            "is read differently even at quality 100, ",
        ),
        ({"target_bytes": 200}, "is too large even at quality 1, "),
    ):
        results = list(run(tasks(folder), recipe(**target), 2))
        assert [result.status for result in results] == ["failed"] * 5
        assert all(result.reason.startswith(message) for result in results)
        assert not (folder / "out").exists()


def test_a_comment_that_is_no_longer_true_is_dropped(network, folder):
    net = network("one")
    (first,) = encode_to_target(PICTURES[:1], networks=[net], keep="top1", comment=b"mine\nand yours")
    note = (inspect(first.data).comment or "").encode()
    (folder / "a.jpg").write_bytes(encode(PICTURES[0], quality=98, comment=note))
    for aim in ({}, {"target_bytes": 2000}):
        (result,) = run([FileTask(folder / "a.jpg", None)], recipe(**aim), 1)
        assert inspect(result.data).comment == "mine\nand yours"


def test_an_interruption_leaves_what_is_found(network, folder):
    """Raised when the first file of a group is found: that one is written, and its result comes first."""
    done: list[int] = []

    def stop() -> None:
        done.append(1)
        raise KeyboardInterrupt

    results = []
    with pytest.raises(KeyboardInterrupt):
        for result in run(tasks(folder), recipe(networks=[network("one")], keep="top1"), 2, on_done=stop):
            results.append(result)
    assert [result.status for result in results] == ["encoded"] and len(done) == 1
    assert [path.stem for path in (folder / "out").iterdir()] == [results[0].source.stem]


def test_each_picture_is_told_when_it_is_done(network, folder, monkeypatch):
    """Not group by group; and one that fails, and makes its group be done one by one, is told once."""
    Image.new("RGB", (72, 56)).save(folder / "2.png")
    seen: list[int] = []
    aim = recipe(networks=[network("no_black")], keep="top1")
    for _ in run(tasks(folder), aim, 2, on_done=lambda: seen.append(1)):
        assert len(seen) == 5
    assert len(seen) == 5
