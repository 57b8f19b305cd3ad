"""`dnnjpeg train` as its users meet it: results that load again, interruptions, bad input."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

torch = pytest.importorskip("torch")

TESTS = Path(__file__).parents[1]
sys.path.append(str(TESTS))

from tiny import CLASSES, classifier, pictures  # noqa: E402

import dnnjpeg  # noqa: E402
from dnnjpeg.tools.cli import main  # noqa: E402

MODEL = f"{TESTS / 'tiny.py'}:classifier"
COUNT = 80
QUICK = ("--epochs", 3, "--batch", 20, "--lr", 0.01, "--pad", 2)


def train(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["train", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to train and to test on, and what the tiny classifier says of them."""
    folder = tmp_path_factory.mktemp("data")
    for name, seed in (("some", 0), ("other", 1)):
        drawn = pictures(COUNT, seed)
        with torch.no_grad():
            logits = classifier()((torch.from_numpy(drawn).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
        np.save(folder / f"{name}.npy", drawn)
        np.save(folder / f"{name}_labels.npy", logits.argmax(1).numpy())
    return folder


@pytest.fixture
def basic(data) -> list[object]:
    return [
        "--network", MODEL, "--data", data / "some.npy", "--labels", data / "some_labels.npy",
        "--test", data / "other.npy", "--test-labels", data / "other_labels.npy",
    ]  # fmt: skip


def test_results_load_again(basic, data, tmp_path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    from dnnjpeg.learn.batches import read
    from dnnjpeg.learn.jpegdl import JPEGLayer
    from dnnjpeg.networks.load import load_network

    out = tmp_path / "out"
    options = ("--start", "standard", "--rounds", 2, "--levels", 255, "--learn-hardness")
    result = train(*basic, *QUICK, *options, "-o", out)
    assert result.exit_code == 0, result.output
    assert not (out / "state.pt").exists()

    report = json.loads((out / "report.json").read_text())
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [one["epoch"] for one in log] == [1, 2, 3] and report["best"] in log
    assert all(one["bytes"] is None and len(one["step"]) == 2 for one in log)
    assert report["data"] == {"name": f"{data.name}/some.npy", "training": 72, "validation": 8}
    assert str(data.parent) not in (out / "report.json").read_text()

    network = load_network(MODEL, weights=out / "network.safetensors")
    layer = JPEGLayer(rounds=2, learn_hardness=True)
    layer.load_state_dict(load_file(out / "jpeg.safetensors"))
    other, labels = np.load(data / "other.npy"), np.load(data / "other_labels.npy")
    assert layer.integer_steps
    for form, name in (("soft", "soft layer"), ("hard", "hard layer"), ("real", "real files")):
        right = (read(network, other, layer, form).argmax(1) == labels).mean()
        assert right == pytest.approx(report["test"][name], abs=1e-4)
        assert f"test pictures, {name}: top-1 {100 * right:.1f} %" in result.output
    tables = [dnnjpeg.load_table(out / f"{name}.json") for name in ("jpeg", "jpeg-2")]
    for table, point in zip(tables, layer.points(), strict=True):
        assert table.points[0].tables == point.tables
    with safe_open(out / "network.safetensors", "pt") as file:
        assert json.loads(file.metadata()["dnnjpeg"])["model"] == "classifier"
    dnnjpeg.encode(other[0], out / "jpeg.json", quality=tables[0].points[0].quality)


def test_the_sensitive_network_may_have_other_classes(basic, data, tmp_path) -> None:
    labels = np.load(data / "some_labels.npy")
    np.save(tmp_path / "labels.npy", (labels + 1) % CLASSES)
    basic[basic.index("--labels") + 1] = tmp_path / "labels.npy"
    start = "--start", "sensitivity", "--sensitive", MODEL
    result = train(*basic, *QUICK, *start, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("more", [(), ("--levels", 31, "--least", 1e-4, "--alpha", 5)])
def test_the_command_for_its_files(basic, data, tmp_path, more) -> None:
    """Writes what the layer does, with coefficients that it clips."""
    from safetensors.torch import load_file

    from dnnjpeg.learn.jpegdl import JPEGLayer
    from dnnjpeg.networks.readings import decode

    out, given, files = tmp_path / "out put", tmp_path / "pictures", tmp_path / "files"
    result = train(*basic, *QUICK, *more, "-o", out)
    command = shlex.split(
        result.output.splitlines()[-1].removeprefix("To encode files for this network: dnnjpeg ")
    )
    given.mkdir()
    some = np.load(data / "other.npy")[:5]
    for i, picture in enumerate(some):
        Image.fromarray(picture).save(given / f"{i}.png")
    places = {"PICTURES": str(given), "FILES": str(files)}
    told = CliRunner().invoke(main, [places.get(word, word) for word in command])
    assert told.exit_code == 0, told.output
    layer = JPEGLayer()
    layer.load_state_dict(load_file(out / "jpeg.safetensors"))
    for i, picture in enumerate(some):
        written = decode((files / f"{i}.jpg").read_bytes())
        assert np.array_equal(written, decode(layer.encode(picture)))


def test_plot(basic, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    assert train(*basic, *QUICK, "-o", tmp_path / "out").exit_code == 0
    with Image.open(tmp_path / "out" / "log.png") as plot:
        assert plot.format == "PNG" and plot.width > 1000


def test_paths_that_are_not_utf_8(basic, data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["dnnjpeg", "train", "--data", "d\udcff"])
    pictures = tmp_path / "p\udcff.npy"
    pictures.write_bytes((data / "some.npy").read_bytes())
    result = train(*basic, *QUICK, "--data", pictures, "-o", tmp_path / "out\udcff")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out\udcff" / "report.json").read_text())
    assert report["data"]["name"] == f"{tmp_path.name}/p\\udcff.npy"
    assert dnnjpeg.load_table(tmp_path / "out\udcff" / "jpeg.json").provenance["command"] == report["command"]


@pytest.mark.parametrize("start", ["ones", "magnitude", "sensitivity"])
def test_first_steps(basic, tmp_path, start) -> None:
    out = tmp_path / "out"
    more = ("--sensitive", MODEL) if start == "sensitivity" else ()
    result = train(*basic, *QUICK, "--start", start, *more, "--layer-lr", 0, "-o", out)
    assert result.exit_code == 0, result.output
    steps = np.array(dnnjpeg.load_table(out / "jpeg.json").points[0].tables)
    assert (steps == 1).all() == (start == "ones")
    if start == "sensitivity":
        assert steps[0].max() == 5


def test_the_default_layer_quantizes_and_its_steps_move(basic, tmp_path) -> None:
    """Steps of 1.02 and files of quality 100 are no use: it begins with the standard table, and leaves it."""
    out = tmp_path / "out"
    result = train(*basic, "--epochs", 3, "--batch", 16, "-o", out)
    assert result.exit_code == 0, result.output
    (point,) = dnnjpeg.load_table(out / "jpeg.json").points
    start = dnnjpeg.load_table("standard").at(75)
    change = np.log(np.array(point.tables) / np.array(start.tables))
    assert np.abs(change).max() > 0.1 and (np.array(point.tables) > 1).mean() > 0.9
    assert 50 < point.quality < 95 and f"--quality {point.quality}" in result.output


def test_every_option_says_what_it_is() -> None:
    from dnnjpeg.tools.train import train as command

    assert [option.name for option in command.params if not option.help] == []


def test_without_a_layer_and_on_files(basic, tmp_path) -> None:
    out = tmp_path / "out"
    result = train(*basic, *QUICK, "--table", "standard", "--quality", "10,50", "-o", out)
    assert result.exit_code == 0, result.output
    assert not (out / "jpeg.json").exists() and (out / "network.safetensors").exists()
    report = json.loads((out / "report.json").read_text())
    assert list(report["test"]) == ["original", "quality 10", "quality 50"]
    assert [point["quality"] for point in report["files"]] == [10, 50]


def test_distillation_needs_no_labels(data, tmp_path) -> None:
    out = tmp_path / "out"
    result = train(
        "--network", MODEL, "--data", data / "some.npy", "--finetune", "distill", "--table", "standard",
        "--quality", 5, "--epochs", 2, "--lr", 0.0003, "--batch", 16, "-o", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [one["epoch"] for one in log] == [0, 1, 2] and log[0]["loss"] is None
    assert json.loads((out / "report.json").read_text())["test"] is None
    assert "is kept. Validation pictures: agreement with the originals " in result.output


def test_interrupted_and_resumed(basic, tmp_path, monkeypatch) -> None:
    from dnnjpeg.learn import training

    whole, out = tmp_path / "whole", tmp_path / "out"
    assert train(*basic, *QUICK, "-o", whole).exit_code == 0
    advance = training._Training.advance

    def stop(self):
        if len(self.epochs) == 2:
            raise KeyboardInterrupt
        return advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "advance", stop)
        result = train(*basic, *QUICK, "-o", out)
    assert result.exit_code == 130 and "--resume" in result.output and not (out / "report.json").exists()
    result = train(*basic, *QUICK, "-o", out)
    assert result.exit_code == 2 and "--resume" in result.output
    result = train(*basic, *QUICK, "-o", out, "--resume", "--lr", 0.02)
    assert result.exit_code == 1 and "another training" in result.output
    assert train(*basic, *QUICK, "-o", out, "--resume").exit_code == 0
    log = (out / "log.jsonl").read_text()
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "log.jsonl").write_text(log)
    assert train(*basic, *QUICK, "-o", alone, "--lr", 1e12).exit_code == 1
    assert log.count("\n") == 3
    assert (alone / "log.jsonl").read_text() == log  # what failed had no epoch to note
    for name in ("network.safetensors", "jpeg.safetensors"):
        from safetensors.torch import load_file

        one, other = load_file(whole / name), load_file(out / name)
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_folder_says_what_may_be_done(basic, tmp_path, monkeypatch) -> None:
    """What is finished is not overwritten, and what is not there does not go on; nothing is loaded for it."""
    from dnnjpeg.learn import training

    out, empty = tmp_path / "out", tmp_path / "empty"
    assert train(*basic, *QUICK, "-o", out).exit_code == 0
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dnnjpeg.networks.load.load_network", stop)
        for more in ((), ("--resume",)):
            result = train(*basic, *QUICK, *more, "-o", out)
            assert result.exit_code == 2 and "finished training" in result.output
            assert "another folder" in result.output
        result = train(*basic, *QUICK, "--resume", "-o", empty)
        assert result.exit_code == 2 and "no interrupted training" in result.output
        assert "without --resume" in result.output
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before and not empty.exists()
    (out / "report.json").unlink()  # the network alone is worth as much
    assert train(*basic, *QUICK, "-o", out).exit_code == 2

    with monkeypatch.context() as patch:
        patch.setattr(training._Training, "advance", stop)
        result = train(*basic, *QUICK, "-o", empty)
    assert result.exit_code == 130 and "--resume" not in result.output and "no epoch" in result.output
    assert train(*basic, *QUICK, "-o", empty).exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--start", "sensitivity"), "--start sensitivity and --sensitive SPEC go together"),
        (("--sensitive", MODEL), "--start sensitivity and --sensitive SPEC go together"),
        (("--kappa", 5, "--alpha", 5), "kappa and alpha are both given: give one of them"),
        (("--levels", 256), "levels is 256, expected an odd number"),
        (("--least", 0.5), "least is 0.5, expected at least 1"),
        (("--rounds", 101), "rounds is 101, expected an integer 1..100"),
        (("--rounds", 2, "--price", 1e-4), "--price needs --rounds 1, and --rounds is 2"),
        (("--lr", "inf"), "lr is inf, expected a number"),
        (("--table", "nothing"), "no table is named 'nothing'"),
    ],
)
def test_wrong_usage_is_found_before_anything_is_loaded(basic, tmp_path, monkeypatch, options, message):

    def load(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("dnnjpeg.networks.load.load_network", load)
    monkeypatch.setattr("dnnjpeg.files.dataset.load_dataset", load)
    result = train(*basic, *QUICK, *options, "-o", tmp_path / "out")
    assert result.exit_code == 2 and message in result.output


def test_bad_input_is_told(basic, data, tmp_path) -> None:
    wrong, short, folder = tmp_path / "wrong.npy", basic[:4], tmp_path / "empty"
    folder.mkdir()
    np.save(wrong, np.full(COUNT, CLASSES))
    cases = [
        (
            [*short, "--labels", wrong],
            1,
            f"the label {CLASSES}, expected 0..{CLASSES - 1}, the classes of the network",
        ),
        ([*basic[:2], "--data", folder], 2, "holds no pictures"),
        (["--network", "nothing", *basic[2:]], 2, "names no network"),
        (short, 1, "has no labels: give labels, or use finetune 'distill'"),
        ([*basic[:6], "--test-labels", wrong], 2, "--test-labels needs test pictures: give --test, too"),
        ([*basic[:6], "--test", data / "other.npy"], 2, "give --test-labels"),
        (
            [*basic[:8], "--test-labels", wrong],
            2,
            f"other.npy has the label {CLASSES}, expected 0..{CLASSES - 1}",
        ),
        (
            [*basic, "--finetune", "bn"],
            1,
            "no batch norms (they may be folded into its convolutions), and finetune 'bn'",
        ),
        ([*basic, "--kappa", 5, "--alpha", 5], 2, "kappa and alpha are both given"),
        ([*basic, "--levels", 256], 2, "levels is 256"),
        ([*basic, "--least", 0.5], 2, "least is 0.5, expected at least 1"),
        (
            [*basic, "--no-layer", "--real-steps"],
            2,
            "--real-steps needs a JPEG layer, and --no-layer is given: leave one out",
        ),
        (
            [*basic, "--no-layer", "--integer-steps"],
            2,
            "--integer-steps needs a JPEG layer, and --no-layer is given",
        ),
        (
            [*basic, "--table", "standard", "--real-steps"],
            2,
            "--real-steps needs a JPEG layer: give --layer, too",
        ),
        ([*basic, "--table", "nothing"], 2, "no table is named"),
        ([*basic, "--table", "standard", "--quality", "0"], 2, "1 to 100"),
        ([*basic, "--quality", "50"], 2, "--quality needs a table: give --table, too"),
        ([*basic, "--no-layer", "--levels", 255], 2, "--levels needs a JPEG layer"),
        (
            [*basic, "--table", "standard", "--layer-lr", 0.1],
            2,
            "--layer-lr needs a JPEG layer: give --layer, too",
        ),
        ([*basic, "--size", 16], 1, "16 x 16, expected at least 32 x 32"),
        ([*basic, "--lr", 1e12], 1, "after epoch 1: give learning rates below"),
    ]
    for arguments, code, message in cases:
        result = train(*arguments, "--epochs", 1, "-o", tmp_path / "out")
        assert result.exit_code == code and message in result.output, (arguments, result.output)
        assert not list(tmp_path.glob("out/*"))  # nothing was trained
