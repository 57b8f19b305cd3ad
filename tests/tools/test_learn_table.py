"""`dnnjpeg learn-table` as its users meet it: tables that work everywhere, interruptions, bad input."""

import io
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("torch")

from learning import COUNT, MODEL, TESTS, learn, report_of, save_data

import dnnjpeg
from dnnjpeg.tools.cli import main


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def basic(data) -> list[object]:
    pictures, labels = ["--data", data / "pictures.npy"], ["--labels", data / "labels.npy"]
    return ["--network", MODEL, *pictures, *labels, "--cache", data / "cache"]


def test_a_learned_table_works_everywhere(basic, data, tmp_path):
    out = tmp_path / "mine.json"
    result = learn(*basic, "-o", out, "--method", "sensitivity", "--points", 4)
    assert result.exit_code == 0, result.output
    table = dnnjpeg.load_table(out)
    assert table.name == "mine" and f"{len(table.points)} points from 12 candidates" in result.output
    picture = np.load(data / "pictures.npy")[0]
    file = dnnjpeg.encode(picture, out, quality=50)
    with Image.open(io.BytesIO(file)) as decoded:
        assert decoded.size == (32, 32)
    assert CliRunner().invoke(main, ["tables", "show", str(out)]).exit_code == 0

    for one, other in pairwise(table.points):
        assert one.quality < other.quality
        assert (
            one.measured["bytes"] < other.measured["bytes"] and one.measured["loss"] > other.measured["loss"]
        )
    for point in table.points:
        assert point.measured["images"] == COUNT
        assert 0 <= point.measured["top1"] <= 1
    source = table.provenance
    assert source["models"][0]["name"] == "classifier" and len(source["models"][0]["weights"]) == 16
    assert source["models"][0]["clean_top1"] == 1
    assert source["data"]["pictures"] + source["data"]["held_out"] == COUNT
    assert source["data"]["labels"] is True and source["data"]["loss"] == "divergence"
    assert str(data.parent) not in out.read_text()

    report = report_of(tmp_path / "mine.json")
    assert len(report["candidates"]) == 4 * 3
    assert {point["subsampling"] for point in report["candidates"]} == {"4:4:4", "4:2:2", "4:2:0"}
    known = {(*c["luma"], *c["chroma"], c["subsampling"]): c["measured"] for c in report["candidates"]}
    chosen = [p for p in table.points if known.get((*p.luma, *p.chroma[0], p.subsampling)) == p.measured]
    between = [p for p in table.points if p not in chosen]
    saved = re.findall(r"([0-9.]+) % (fewer|more) bytes than the standard table", result.output)
    assert {how for (_, how), p in zip(saved, table.points, strict=True) if p in chosen} == {"fewer"}
    first = dnnjpeg.Table("first", chosen)
    checked = {(first.at(q).tables, first.at(q).subsampling) for q in (20, 35, 50, 65, 75, 85)}
    assert {(point.tables, point.subsampling) for point in between} <= checked


def test_quality_means_equal_loss(basic, tmp_path):
    out = tmp_path / "t.json"
    result = learn(
        *basic, "-o", out, "--method", "sensitivity", "--qualities", "20,35", "--subsampling", "4:2:0"
    )
    assert result.exit_code == 0, result.output
    report = report_of(tmp_path / "t.json")
    standard = {one["quality"]: one for one in report["standard"]}
    for point in dnnjpeg.load_table(out).points:
        below = max(q for q in standard if q <= point.quality)
        above = min(q for q in standard if q >= point.quality)
        # the curve is smoothed, so neighbours may be one step further
        losses = [standard[q]["loss"] for q in standard if below - 11 <= q <= above + 11]
        assert min(losses) <= point.measured["loss"] <= max(losses)


def test_plot(basic, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["--method", "sensitivity", "--qualities", 25, "--subsampling", "4:2:0"]
    assert learn(*basic, "-o", tmp_path / "t.json", *arguments).exit_code == 0
    with Image.open(tmp_path / "t.report" / "curve.png") as plot:
        assert plot.format == "PNG" and plot.width > 300


def test_slopes_by_default_go_on_from_what_is_kept(data, tmp_path):
    arguments = ["--network", MODEL, "--data", data / "pictures.npy", "--headerless"]
    arguments += ["--cache", tmp_path / "cache", "--qualities", 60, "--subsampling", "4:4:4"]
    one, again = tmp_path / "one.json", tmp_path / "again.json"
    result = learn(*arguments, "-o", one)
    assert result.exit_code == 0, result.output
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}
    assert learn(*arguments, "-o", again).exit_code == 0
    assert kept == {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").iterdir()}
    found = dnnjpeg.load_table(one)
    assert found.points == dnnjpeg.load_table(again).points
    assert found.provenance["data"]["bytes"] == "scans"
    for point in found.points:
        files = [dnnjpeg.encode(picture, point, optimize=False) for picture in np.load(data / "pictures.npy")]
        sizes = [dnnjpeg.inspect(file).scan_bytes for file in files]
        assert point.measured["bytes"] == pytest.approx(np.mean(sizes), abs=0.01)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """A made-up one, on which a picture takes a tenth of a second to be read, and three to be differentiated,
    unless that is in the cache.
    """
    from dnnjpeg.learn.bench import Bench
    from dnnjpeg.networks.measurer import Measurer

    now, measure, damage = [0.0], Measurer._measure, Bench._damage

    def slow(self, *arguments):
        now[0] += 0.1 * len(self.dataset)
        return measure(self, *arguments)

    def slower(self, steps, subsampling, index):
        now[0] += 0.3 * len(index)
        return damage(self, steps, subsampling, index)

    monkeypatch.setattr(Measurer, "_measure", slow)
    monkeypatch.setattr(Bench, "_damage", slower)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_the_time_budget_is_kept(data, tmp_path, clock):
    """Of the whole run: 10 readings of 100 pictures for the standard table, up to 7 at the end."""
    arguments = ["--network", MODEL, "--data", data / "pictures.npy", "--cache", tmp_path / "cache"]
    arguments += ["--qualities", 25, "--subsampling", "4:2:0"]
    result = learn(*arguments, "-o", tmp_path / "t.json", "--time-budget", 5)
    assert result.exit_code == 0, result.output
    assert 200 <= clock[0] <= 1.1 * 300
    clock[0] = 0
    arguments += ["--limit", 99]
    result = learn(*arguments, "-o", tmp_path / "late.json", "--time-budget", 2)
    assert result.exit_code == 1 and clock[0] <= 20
    assert "--time-budget is 2, expected at least " in result.output
    assert "one reading of all pictures takes 9.9 seconds. Give more time, or fewer pictures" in result.output


def test_gains_have_intervals_and_a_command_that_measures_them(basic, data, tmp_path, monkeypatch):
    out = tmp_path / "t.json"
    arguments = ["--method", "sensitivity", "--qualities", 25, "--subsampling", "4:2:0", "--crop", 32]
    result = learn(*basic, "-o", out, *arguments)
    assert result.exit_code == 0, result.output
    gains = re.findall(
        r"([0-9.]+) % fewer bytes than the standard table "
        r"\(95 % interval of the change: ([+-][0-9.]+) to ([+-][0-9.]+) %\)",
        result.output,
    )
    assert gains
    for gain, low, high in gains:
        assert float(low) < -float(gain) < float(high)
    assert "These gains are optimistic" in result.output
    last = result.output.splitlines()[-1].partition("dnnjpeg evaluate ")[2]
    other = tmp_path / "other.npy"
    np.save(other, np.load(data / "pictures.npy")[:30])
    words = shlex.split(last.replace("OTHER_PICTURES", str(other)))
    assert {"--crop", "32", f"dnnjpeg:{out}"} <= set(words)
    done = CliRunner().invoke(main, ["evaluate", *words, "--cache", str(data / "cache")])
    assert done.exit_code == 0, done.output


J4D = ("--method", "j4d", "--steps", 12, "--qualities", 25, "--subsampling", "4:2:0")


def test_interrupted_and_resumed(basic, tmp_path, monkeypatch):
    whole = tmp_path / "whole.json"
    assert learn(*basic, "-o", whole, *J4D).exit_code == 0
    assert not list((tmp_path / "whole.report").glob("*.pt"))

    from dnnjpeg.learn import j4d

    advance, done = j4d._Descent.advance, []

    def stop(self, deadline):
        if len(done) == 11:
            raise KeyboardInterrupt
        done.append(self.step)
        return advance(self, deadline)

    out = tmp_path / "out.json"
    with monkeypatch.context() as patch:
        patch.setattr(j4d._Descent, "advance", stop)
        result = learn(*basic, "-o", out, *J4D)
    assert result.exit_code == 130 and "--resume" in result.output and not out.exists()
    result = learn(*basic, "-o", out, *J4D)
    assert result.exit_code == 2 and "--resume" in result.output
    result = learn(*basic, "-o", out, *J4D, "--resume", "--seed", 1)
    assert result.exit_code == 1 and "another descent" in result.output
    assert learn(*basic, "-o", out, *J4D, "--resume").exit_code == 0
    assert dnnjpeg.load_table(out).points == dnnjpeg.load_table(whole).points


def test_descent_begins_with_a_table(data, tmp_path):
    """After one step of .03 in the logarithm, no step is far from where it began."""
    chroma = [30, 31] * 32
    start = dnnjpeg.OperatingPoint(40, "4:4:4", [24, 25] * 32, (chroma, [60] * 64), bin_width=(0.9, 1, 1))
    dnnjpeg.Table("start", [start]).save(tmp_path / "start.json")
    out = tmp_path / "out.json"
    learn(
        "--network", MODEL, "--data", data / "pictures.npy", "-o", out, "--method", "j4d", "--steps", 1,
        "--start", tmp_path / "start.json", "--qualities", 40, "--subsampling", "4:2:0",
        "--cache", data / "cache",
    )  # fmt: skip
    (found,) = report_of(tmp_path / "out.json")["candidates"]
    assert found["subsampling"] == "4:2:0" and not found.get("bin_width")
    assert np.abs(np.array(found["luma"]) - start.luma).max() <= 1
    assert np.abs(np.array(found["chroma"]) - chroma).max() <= 1
    assert np.any(np.array(found["luma"]) != start.luma) or np.any(np.array(found["chroma"]) != chroma)


def test_several_networks_learned_hardness_three_tables(data, tmp_path):
    out = tmp_path / "universal.json"
    result = learn(
        "--network", MODEL, "--network", f"{TESTS / 'tiny.py'}:second_classifier",
        "--data", data / "pictures.npy", "-o", out, "--method", "j4d", "--steps", 2,
        "--qualities", "25,30", "--cache", data / "cache",
        "--hardness", "learned", "--tables", 3, "--subsampling", "4:2:0", "--time-budget", 30, "--bfloat16",
    )  # fmt: skip
    report = report_of(tmp_path / "universal.json")
    assert [model["name"] for model in report["provenance"]["models"]] == ["classifier", "second_classifier"]
    assert len(report["candidates"]) == 2
    for point in report["candidates"]:
        assert len(point["chroma"]) == 2 and len(point["hardness"][0]) == 64
        assert "top1" not in point["measured"] and 0 <= point["measured"]["agreement"] <= 1
    if result.exit_code:  # two steps may not suffice: then there is the report, but no table
        assert "none of 2 candidates" in result.output and not out.exists()


def test_paths_that_are_not_utf_8(basic, data, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["dnnjpeg", "learn-table", "--data", "d\udcff"])
    pictures = tmp_path / "p\udcff.npy"
    pictures.write_bytes((data / "pictures.npy").read_bytes())
    arguments = ["--method", "sensitivity", "--qualities", 25, "--subsampling", "4:2:0"]
    arguments += ["--data", pictures, "--check", pictures, "--name", "t"]
    assert learn(*basic, *arguments, "-o", tmp_path / "t\udcff.json").exit_code == 0
    found = dnnjpeg.load_table(tmp_path / "t\udcff.json").provenance
    assert found["data"]["name"] == f"{tmp_path.name}/p\\udcff.npy"
    assert found["command"] == "dnnjpeg learn-table --data 'd\\udcff'"


def test_pictures_of_which_nothing_is_lost_have_no_ratio(basic, tmp_path):
    """The table is kept all the same."""
    flat = tmp_path / "flat.npy"
    np.save(flat, np.full((3, 40, 40, 3), 128, np.uint8))
    arguments = ["--method", "sensitivity", "--qualities", 25, "--subsampling", "4:2:0", "--check", flat]
    result = learn(*basic, *arguments, "-o", tmp_path / "t.json")
    assert result.exit_code == 0, result.output
    assert dnnjpeg.load_table(tmp_path / "t.json").provenance["check"]["loss_ratio"] == {}


@pytest.mark.parametrize(
    ("output", "name"), [("t.json", ["--name", "a\tb"]), ("a\tb.json", []), ("t\udcff.json", [])]
)
def test_a_name_is_checked_before_learning(basic, tmp_path, monkeypatch, output, name):
    monkeypatch.setattr("dnnjpeg.tools.learn_table._prepare", lambda **_: pytest.fail("it begins"))
    result = learn(*basic, "-o", tmp_path / output, *name)
    assert result.exit_code == 2 and "expected printable text: give another one by --name" in result.output


def test_bad_input_is_told_and_writes_nothing(basic, data, tmp_path):
    shuffled, one, folder = tmp_path / "shuffled.npy", tmp_path / "one.npy", tmp_path / "empty"
    np.save(shuffled, np.random.default_rng(0).permutation(np.load(data / "labels.npy")))
    np.save(one, np.zeros(COUNT, np.int64))
    folder.mkdir()
    model, source = basic[:2], basic[2:4]  # and labels, cache
    out = tmp_path / "out.json"
    cases = [
        ([*model, *source, "--labels", shuffled], 2, "chance would find"),
        ([*model, *source, "--labels", one], 2, "have label 0"),
        ([*model, "--data", folder], 2, "no pictures"),
        ([*model, *source, "--loss", "cross-entropy"], 2, "has no labels"),
        ([*basic, "--loss", "accuracy"], 2, "divergence"),
        ([*basic, "--limit", 1], 2, "share"),
        (["--network", f"{TESTS / 'tiny.py'}:mute_classifier", *source], 2, "NaN"),
        (["--network", "nothing", *source], 2, "names no network"),
        ([*basic, "--qualities", "0,50"], 2, "1 to 100"),
        ([*basic, "--device", "nowhere"], 2, "nowhere"),
        ([*basic, "--start", "nothing"], 2, "no table is named 'nothing'"),
        ([*basic, "-o", tmp_path / "none" / "out.json"], 2, "no folder"),
    ]
    for arguments, code, message in cases:
        result = learn("-o", out, *arguments)
        assert result.exit_code == code and message in result.output, (arguments, result.output)
        assert not out.exists()


def test_torchrun(basic, tmp_path):
    out = tmp_path / "out.json"
    program = Path(sys.executable).with_name("dnnjpeg")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "--no-python", str(program), "learn-table", *map(str, basic), "-o", str(out), *map(str, J4D)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("bytes than the standard table") == len(dnnjpeg.load_table(out).points)
