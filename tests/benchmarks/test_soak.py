"""500 cases a group of what is guaranteed; and the benchmark: what it tells, and that it finds faults."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

for package in ("jpeglib", "simplejpeg", "torch"):
    pytest.importorskip(package)

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("cases", "groups"),
    [
        (500, ("coefficients", "tables", "mutations", "json")),
        (100, ("threads",)),
        pytest.param(
            50, ("files",), marks=pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
        ),
    ],
)
def test_no_case_fails(cases: int, groups: tuple[str, ...], run, written) -> None:
    options = [option for name in groups for option in ("--group", name)]
    lines = run("soak.py", "--cases", str(cases), "--minutes", "2", "--seed", "7", *options).splitlines()
    found = written("soak")["groups"]
    assert set(found) == set(groups) and len(lines) == len(groups)
    for name, line in zip(groups, lines, strict=True):
        assert re.fullmatch(rf"{name} +seed 7 +{cases} cases +\d+ s +0 failures", line)
        assert (found[name]["cases"], found[name]["failures"], found[name]["seed"]) == (cases, 0, 7)


def test_other_groups_stay_in_the_results(run, written, results: Path) -> None:
    results.mkdir()
    (results / "soak.json").write_text(json.dumps({"groups": {"json": {"cases": 5}}}))
    run("soak.py", "--cases", "3", "--group", "mutations")
    assert written("soak")["groups"]["json"] == {"cases": 5}
    assert written("soak")["groups"]["mutations"]["cases"] == 3


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import soak

    return soak


def test_another_process_makes_the_same_files(run, soak: Any) -> None:
    own = [soak.digest(3, case) for case in range(5)]
    assert len(set(own)) == 5
    assert run("soak.py", "--digests", "5", "--seed", "3").split() == own


def test_faults_are_counted_and_a_hang_is_one(soak: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def case(rng: Any, scratch: Path) -> None:
        number = int(rng.integers(0, 3))
        assert number, "a fault"
        while number == 2:
            pass

    monkeypatch.setitem(soak.CASES, "json", case)
    monkeypatch.setattr(soak, "SECONDS", 1)
    kinds = [int(soak.random(0, "json", i).integers(0, 3)) for i in range(6)]
    assert {0, 1, 2} == set(kinds)
    found = soak.soak("json", 6, float("inf"), 0)
    told = {0: "AssertionError: a fault", 2: "Hang: no end after 1 s"}
    expected = [f"case {i}: {told[kind]}" for i, kind in enumerate(kinds) if kind in told]
    assert (found["cases"], found["failures"]) == (6, len(expected))
    assert [line.splitlines()[0] for line in found["told"]] == expected[: soak.TOLD]


@pytest.mark.parametrize(
    ("group", "of"),
    [("coefficients", "write_coefficients"), ("tables", "encode"), ("threads", "encode")],
)
def test_a_codec_that_errs_is_found(soak: Any, group: str, of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bit in the last bytes of the scan is another."""
    right, calls = getattr(soak.soak_cases, of), iter(range(1000))

    def wrong(*args: Any, **options: Any) -> bytes:
        data = right(*args, **options)
        return data[:-4] + bytes([data[-4] ^ 4]) + data[-3:] if next(calls) % 4 == 3 else data

    monkeypatch.setattr(soak.soak_cases, of, wrong)
    assert soak.soak(group, 20, float("inf"), 0)["failures"] >= 3


@pytest.mark.filterwarnings("ignore")  # of newer Pythons, which warn of forks among threads
def test_a_writer_in_place_is_found(soak: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that empties the file first and fills it bit by bit."""

    def write(path: Path, data: bytes) -> None:
        with path.open("wb", buffering=0) as file:
            for start in range(0, len(data), 4096):
                file.write(data[start : start + 4096])

    monkeypatch.setattr(soak.soak_damage, "write_atomic", write)
    assert soak.soak("files", 30, float("inf"), 0)["failures"] >= 3
