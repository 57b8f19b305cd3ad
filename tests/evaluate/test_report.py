"""Reports of measurements that are made up, so that what they must say is known."""

import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from dnnjpeg.evaluate.measure import Measurement
from dnnjpeg.evaluate.report import report
from dnnjpeg.evaluate.text import as_text
from dnnjpeg.learn.recipe import Epoch
from dnnjpeg.point import OperatingPoint
from dnnjpeg.readings import Readings

N, SIDE = 300, 100
LUCK = np.random.default_rng(0).uniform(size=N)  # of each picture: its size, its loss, whether it is read


def readings(loss: float) -> Readings:
    """At a mean loss of about `loss`, a share of exp(-loss) of the pictures is read."""
    top1 = np.exp(-loss) > LUCK
    return Readings(loss * (0.5 + LUCK), loss * LUCK, top1, top1 | (LUCK < 0.9), top1 & (LUCK > 0.01))


def measured(codec: str, quality: float, size: float, loss: float, jpeg: bool = True) -> Measurement:
    size_of = np.round(size * (0.5 + LUCK[::-1]))
    networks = {"one": readings(loss), "two": readings(2 * loss)}
    return Measurement(codec, quality, size_of, size_of - 300 if jpeg else None, 30 + 0 * LUCK, networks)


def family(codec: str, share: float = 1, **options: Any) -> list[Measurement]:
    settings = {20: (4000, 1.2), 50: (8000, 0.7), 75: (12_000, 0.4)}
    return [measured(codec, q, share * size, loss, **options) for q, (size, loss) in settings.items()]


CLEAN = {"one": readings(0.3), "two": readings(0.5)}


def make(*families: list[Measurement], **options: Any) -> dict[str, Any]:
    settings = {"references": ("base",), "side": SIDE, "labelled": True, "headerless": False} | options
    found = report({some[0].codec: some for some in families}, CLEAN, **settings)
    return json.loads(json.dumps(found, allow_nan=False))


def rows(found: dict[str, Any], **wanted: str) -> list[dict[str, Any]]:
    return [row for row in found["comparisons"] if all(row[key] == value for key, value in wanted.items())]


def test_settings_are_the_means_with_their_intervals() -> None:
    found = make(family("base"), family("webp", jpeg=False))
    assert [(one["codec"], one["quality"]) for one in found["settings"]] == [
        (codec, quality) for codec in ("base", "webp") for quality in (20, 50, 75)
    ]
    one = measured("base", 50, 8000, 0.7)
    first = found["settings"][1]
    assert first["bytes"]["value"] == pytest.approx(one.bytes.mean(), rel=1e-5)
    assert first["scan_bytes"]["value"] == pytest.approx(one.scan_bytes.mean(), rel=1e-5)
    assert first["bits_per_pixel"] == pytest.approx(8 * one.bytes.mean() / SIDE**2)
    assert first["psnr"] == {"value": 30, "low": 30, "high": 30}
    assert found["settings"][4]["scan_bytes"] is None
    names = {
        "loss": "loss",
        "divergence": "divergence",
        "top1": "top1",
        "top5": "top5",
        "agreement": "agrees",
    }
    for network, read in one.readings.items():
        assert set(first["networks"][network]) == set(names)
        for name, field in names.items():
            values = getattr(read, field).astype(float)
            estimate, error = first["networks"][network][name], values.std() / N**0.5
            assert estimate["value"] == pytest.approx(values.mean(), rel=1e-5)
            assert estimate["high"] - estimate["low"] == pytest.approx(3.92 * error, rel=0.15)
    assert found["clean"]["two"]["loss"]["value"] == pytest.approx(CLEAN["two"].loss.mean(), rel=1e-5)


def test_a_codec_that_takes_four_fifths_of_the_bytes() -> None:
    found = make(family("base"), family("ours", 0.8))
    assert len(found["comparisons"]) == 4  # two networks, two metrics
    for row in found["comparisons"]:
        assert (row["codec"], row["reference"]) == ("ours", "base")
        assert row["bd_rate"]["value"] == pytest.approx(-20, abs=0.02)  # bytes are whole
        assert row["bd_rate"]["high"] - row["bd_rate"]["low"] < 0.1  # paired: the luck of the draw is shared
        assert [point["quality"] for point in row["points"]] == [20, 50, 75]
        for point, base in zip(row["points"], family("base"), strict=True):
            assert point["bytes_change"]["value"] == pytest.approx(-20, abs=0.02)
            assert point["bytes"]["value"] == pytest.approx(0.8 * base.bytes.mean(), rel=1e-3)
            read = getattr(base.readings[row["network"]], row["metric"])
            assert point[row["metric"]]["value"] == pytest.approx(read.mean(), rel=1e-5)


def test_the_metric_at_equal_bytes() -> None:
    """Between its settings at 0.8 of the bytes, a codec is on the straight line over log bytes."""
    (row,) = rows(make(family("base"), family("ours", 0.8)), network="one", metric="loss")
    first = row["points"][0]["metric_change"]
    losses = [readings(loss).loss.mean() for loss in (1.2, 0.7)]
    share = np.log(1 / 0.8) / np.log(2)
    assert first["value"] == pytest.approx(share * (losses[1] - losses[0]), rel=1e-3)
    assert first["value"] < first["high"] < 0
    assert row["points"][2]["metric_change"] == {"value": None, "low": None, "high": None}


def test_several_references_are_compared_at_the_points_of_the_first() -> None:
    found = make(family("base"), family("other", 0.9), family("ours", 0.8), references=("base", "other"))
    (row,) = rows(found, codec="ours", reference="other", network="one", metric="loss")
    (against_base,) = rows(found, codec="ours", reference="base", network="one", metric="loss")
    assert row["bd_rate"]["value"] == pytest.approx(100 * (0.8 / 0.9 - 1), abs=0.02)
    for point, base in zip(row["points"], against_base["points"], strict=True):
        assert (point["loss"], point["bytes"]) == (base["loss"], base["bytes"])
        assert point["bytes_change"]["value"] == pytest.approx(100 * (0.8 / 0.9 - 1), abs=0.02)
    assert not rows(found, codec="other", reference="other")


def test_what_lies_beyond_the_settings_is_null() -> None:
    worse = [measured("worse", 50, 9000, 2.0), measured("worse", 90, 15_000, 0.9)]
    (row,) = rows(make(family("base"), worse), network="one", metric="loss")
    at_20, at_50, at_75 = (point["bytes_change"] for point in row["points"])
    assert at_20["low"] < at_20["value"] < at_20["high"]
    assert at_50 == at_75 == {"value": None, "low": None, "high": None}
    assert "beyond" in as_text(make(family("base"), worse))


def test_headers_left_out() -> None:
    found = make(family("base"), family("ours", 0.8), headerless=True)
    assert found["rate"] == "scan_bytes"
    (row,) = rows(found, network="one", metric="loss")
    first = family("base")[0]
    expected = 100 * ((0.8 * first.bytes.mean() - 300) / (first.bytes.mean() - 300) - 1)
    assert row["points"][0]["bytes_change"]["value"] == pytest.approx(expected, abs=0.02)
    assert "headerless bytes at equal loss" in as_text(found)
    with pytest.raises(ValueError, match="webp writes no JPEG"):
        make(family("base"), family("webp", jpeg=False), headerless=True)


def test_without_labels_the_loss_is_the_divergence() -> None:
    found = make(family("base"), family("ours", 0.8), labelled=False)
    assert {row["metric"] for row in found["comparisons"]} == {"divergence"}
    assert all(row["bd_rate"]["value"] == pytest.approx(-20, abs=0.02) for row in found["comparisons"])
    assert set(found["clean"]["one"]) == {"divergence", "agreement"}
    text = as_text(found)
    assert "equal divergence" in text and "no labels" in text
    assert "top-1" not in text and "loss" not in text


def test_text() -> None:
    lines = as_text(make(family("base"), family("ours", 0.8))).splitlines()
    one = measured("ours", 50, 0.8 * 8000, 0.7)
    cells = next(line for line in lines if line.startswith("ours") and " 50 " in line).split()
    assert cells[2:5] == [
        f"{one.bytes.mean():,.0f}",
        f"{one.scan_bytes.mean():,.0f}",
        f"{8 * one.bytes.mean() / SIDE**2:.3f}",
    ]
    assert cells[5] == f"{100 * one.readings['one'].top1.mean():.1f}" and cells[6].startswith("±")
    (title,) = (i for i, line in enumerate(lines) if line.startswith("two: bytes at equal loss, % of change"))
    assert lines[title + 1].split() == ["codec", "q20", "q50", "q75", "BD-rate"]
    assert lines[title + 2].split() == ["ours", *["-20.0", "(-20.0..-20.0)"] * 4]


@pytest.mark.parametrize(("labelled", "shape"), [(True, (2, 2)), (False, (1, 2))])
def test_plot(labelled: bool, shape: tuple[int, int]) -> None:
    pytest.importorskip("matplotlib")
    from dnnjpeg.evaluate.plot import plot

    many = [family(f"codec {i}", 1 - i / 20) for i in range(5)]
    found = make(*many, labelled=labelled, references=("codec 0",))
    with Image.open(io.BytesIO(plot(found, "a title"))) as image:
        assert image.format == "PNG"
        assert image.width > 700 * shape[0] and image.height > 500 * shape[1]
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    saturated = counts[np.ptp(colours.astype(int), axis=1) > 60]
    assert (saturated > 500).sum() >= 5  # lines of many colours on a white ground
    assert (pixels == 255).all(axis=1).mean() > 0.5


@pytest.mark.parametrize("tables", [0, 2, 3])
def test_plot_of_a_training(tables: int) -> None:
    """Losses, accuracy, and a panel for each table of steps."""
    pytest.importorskip("matplotlib")
    from dnnjpeg.evaluate.plot import plot_training

    losses = (None, 2.0, 1.0)  # as of a fine-tuning, whose first has none
    log = [Epoch(i, loss, 1.5 - i / 3, i / 4, 1.0, None, None) for i, loss in enumerate(losses)]
    point = OperatingPoint.from_tables([[16] * 63 + [99]] * tables) if tables else None
    with Image.open(io.BytesIO(plot_training(log, point))) as image:
        assert image.format == "PNG" and image.height > 400
        assert image.width == pytest.approx(528 * (2 + tables), abs=2)
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    is_yellow = (pixels == (253, 231, 36)).all(axis=1).sum()  # the largest step
    assert (is_yellow > 100) == (tables > 0)
