"""Reports of measurements that are made up, so that what they must say is known."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from dnnjpeg.evaluate.measure import Measurement
from dnnjpeg.evaluate.report import report
from dnnjpeg.evaluate.text import as_text, in_words, interval
from dnnjpeg.learn.recipe import Epoch
from dnnjpeg.networks.readings import Readings
from dnnjpeg.table.point import OperatingPoint

N, PIXELS = 300, 1e4
LUCK = np.random.default_rng(0).uniform(size=N)  # of each picture: its size, its loss, whether it is read


def readings(loss: float) -> Readings:
    """At a mean loss of about `loss`, a share of exp(-loss) of the pictures is read."""
    top1 = np.exp(-loss) > LUCK
    metrics = {"loss": loss * (0.5 + LUCK), "top1": top1, "top5": top1 | (LUCK < 0.9)}
    return Readings(loss * LUCK, top1 & (LUCK > 0.01), metrics)


def measured(codec: str, quality: float, size: float, loss: float, jpeg: bool = True) -> Measurement:
    size_of = np.round(size * (0.5 + LUCK[::-1]))
    networks = {"one": readings(loss), "two": readings(2 * loss)}
    return Measurement(codec, quality, size_of, size_of - 300 if jpeg else None, 30 + 0 * LUCK, networks)


def family(codec: str, share: float = 1, **options: Any) -> list[Measurement]:
    settings = {20: (4000, 1.2), 50: (8000, 0.7), 75: (12_000, 0.4)}
    return [measured(codec, q, share * size, loss, **options) for q, (size, loss) in settings.items()]


def read_by(some: list[Measurement], *networks: str) -> list[Measurement]:
    return [replace(one, readings={name: one.readings[name] for name in networks}) for one in some]


CLEAN = {"one": readings(0.3), "two": readings(0.5)}
BEYOND = {"value": None, "low": None, "high": None}


def bare(read: dict[str, Readings]) -> dict[str, Readings]:
    """The same without labels."""
    return {name: Readings(one.divergence, one.agrees) for name, one in read.items()}


def make(*families: list[Measurement], labelled: bool = True, **options: Any) -> dict[str, Any]:
    settings = {"references": ("base",), "qualities": (20, 50, 75), "pixels": PIXELS}
    scores = {name: {"loss": -1, "top1": 1} if labelled else {} for name in CLEAN}
    settings |= {"scores": scores, "headerless": False} | options
    if not labelled:
        families = tuple([replace(one, readings=bare(one.readings)) for one in some] for some in families)
    clean = CLEAN if labelled else bare(CLEAN)
    found = report({some[0].codec: some for some in families}, clean, **settings)
    return json.loads(json.dumps(found, allow_nan=False))


def rows(found: dict[str, Any], **wanted: str | None) -> list[dict[str, Any]]:
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
    assert first["bits_per_pixel"] == pytest.approx(8 * one.bytes.mean() / PIXELS)
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
    assert [(row["metric"], row["network"]) for row in found["comparisons"]] == [
        (metric, network) for metric in ("divergence", "loss", "top1") for network in ("one", "two", None)
    ]
    for row in found["comparisons"]:
        assert (row["codec"], row["reference"]) == ("ours", "base")
        assert [point["quality"] for point in row["points"]] == [20, 50, 75]
        for point, base in zip(row["points"], family("base"), strict=True):
            change = point["bytes_change"]
            assert change["value"] == pytest.approx(-20, abs=0.02)  # bytes are whole
            assert change["high"] - change["low"] < 0.1  # paired: the luck of the draw is shared
            if row["network"] is None:
                continue
            assert point["bytes"]["value"] == pytest.approx(0.8 * base.bytes.mean(), rel=1e-3)
            assert point["bytes"]["high"] / point["bytes"]["low"] > 1.05  # the luck of the draw
            read = getattr(base.readings[row["network"]], row["metric"])
            assert point[row["metric"]]["value"] == pytest.approx(read.mean(), rel=1e-5)
        if row["network"] is not None:
            assert row["bd_rate"]["value"] == pytest.approx(-20, abs=0.02)
            assert row["bd_rate"]["high"] - row["bd_rate"]["low"] < 0.1


@pytest.mark.parametrize(("metric", "shape"), [("divergence", np.log), ("loss", lambda x: x)])
def test_the_metric_at_equal_bytes(metric: str, shape: Callable[[float], float]) -> None:
    """Between its settings at 0.8 of the bytes, a codec is on the straight line over log bytes, of the
    logarithm of the divergence.
    """
    (row,) = rows(make(family("base"), family("ours", 0.8)), network="one", metric=metric)
    first = row["points"][0]["metric_change"]
    coarse, fine = (getattr(readings(loss), metric).mean() for loss in (1.2, 0.7))
    at = np.interp(np.log(1 / 0.8), [0, np.log(2)], [shape(coarse), shape(fine)])
    expected = (np.exp(at) if metric == "divergence" else at) - coarse
    assert first["value"] == pytest.approx(expected, rel=1e-3)
    assert first["low"] < first["value"] < first["high"] < 0
    assert row["points"][2]["metric_change"] == BEYOND


def test_bytes_between_settings_are_read_off_straight_lines() -> None:
    """Of the logarithm of the divergence, and of the cross-entropy."""
    other = [measured("other", 30, 5000, 1.5), measured("other", 60, 20_000, 0.3)]
    found = make(family("base"), other)
    for metric, shape in (("divergence", np.log), ("loss", lambda x: x)):
        (row,) = rows(found, network="two", metric=metric)
        ends = [-shape(getattr(one.readings["two"], metric).mean()) for one in other]
        for point, base in zip(row["points"], family("base"), strict=True):
            at = -shape(getattr(base.readings["two"], metric).mean())
            expected = np.exp(np.interp(at, ends, [np.log(one.bytes.mean()) for one in other]))
            assert point["bytes"]["value"] == pytest.approx(expected, rel=1e-5)
            change = 100 * (expected / base.bytes.mean() - 1)
            assert point["bytes_change"]["value"] == pytest.approx(change, rel=1e-4)


def test_several_references_are_compared_at_the_points_of_the_first() -> None:
    found = make(family("base"), family("other", 0.9), family("ours", 0.8), references=("base", "other"))
    (row,) = rows(found, codec="ours", reference="other", network="one", metric="loss")
    (against_base,) = rows(found, codec="ours", reference="base", network="one", metric="loss")
    assert row["bd_rate"]["value"] == pytest.approx(100 * (0.8 / 0.9 - 1), abs=0.02)
    for point, base in zip(row["points"], against_base["points"], strict=True):
        assert (point["loss"], point["bytes"]) == (base["loss"], base["bytes"])
        assert point["bytes_change"]["value"] == pytest.approx(100 * (0.8 / 0.9 - 1), abs=0.02)
    assert not rows(found, codec="other", reference="other")


def test_settings_of_the_reference_that_are_not_asked_for_are_no_points() -> None:
    base = sorted([*family("base"), measured("base", 35, 6000, 0.9)], key=lambda one: one.quality)
    found = make(base, family("ours", 0.8), qualities=(75, 20))
    assert {tuple(p["quality"] for p in row["points"]) for row in found["comparisons"]} == {(20, 75)}
    assert [(row["network"], row["quality"]) for row in found["nominal"]] == [
        ("one", 20), ("two", 20), ("one", 75), ("two", 75),
    ]  # fmt: skip


def test_means_of_networks_are_geometric_and_name_the_worst() -> None:
    """Two networks that read the same sizes otherwise: one as at 0.8 of the bytes, one as at 1.1."""
    base, few, many = family("base"), family("x", 0.8), family("x", 1.1)
    apart = [*read_by(few, "one"), *read_by(many, "two")]
    found = make(base, apart)
    for metric in ("divergence", "loss", "top1"):
        (mean,) = rows(found, network=None, metric=metric)
        single = [rows(found, network=name, metric=metric)[0]["points"] for name in ("one", "two")]
        for point, *own in zip(mean["points"], *single, strict=True):
            ratios = [1 + one["bytes_change"]["value"] / 100 for one in own]
            expected = 100 * (np.prod(ratios) ** 0.5 - 1)
            assert point["bytes_change"]["value"] == pytest.approx(expected, abs=1e-3)
            assert expected == pytest.approx(100 * ((0.8 * 1.1) ** 0.5 - 1), abs=0.03)
            assert point["bytes_change"]["high"] - point["bytes_change"]["low"] < 0.1  # paired
            assert point["worst"] == {"network": "two", **own[1]["bytes_change"]}
    text = as_text(found)
    assert "mean of the networks, and the worst of them: bytes at equal divergence, %" in text
    assert "-6.2 (-6.2..-6.2), worst +10.0 two" in text


def test_a_network_that_needs_more_bytes_than_were_measured_is_the_worst() -> None:
    never = [measured("x", quality, 4000 + 100 * quality, 5) for quality in (20, 50)]
    apart = [*read_by(family("x", 0.8), "one"), *read_by(never, "two")]
    found = make(family("base"), apart, labelled=False)
    (mean,) = rows(found, network=None)
    for point in mean["points"]:
        assert point["bytes_change"] == BEYOND
        assert point["worst"] == {"network": "two", **BEYOND}
    assert "not reached, worst not reached two" in as_text(found)
    always = [measured("x", quality, 4000 + 100 * quality, 0.01) for quality in (20, 50)]
    apart = [*read_by(family("x", 0.8), "one"), *read_by(always, "two")]
    (mean,) = rows(make(family("base"), apart, labelled=False), network=None)
    for point in mean["points"]:
        assert point["bytes_change"] == BEYOND
        assert point["worst"]["network"] == "one"
        assert point["worst"]["value"] == pytest.approx(-20, abs=0.02)


def test_a_codec_that_one_network_reads() -> None:
    found = make(family("base"), read_by(family("own", 0.9), "two"), family("ours", 0.8), labelled=False)
    assert [(row["codec"], row["network"]) for row in found["comparisons"]] == [
        ("own", "two"), ("ours", "one"), ("ours", "two"), ("ours", None),
    ]  # fmt: skip
    (row,) = rows(found, codec="own")
    assert row["points"][1]["bytes_change"]["value"] == pytest.approx(-10, abs=0.02)
    assert [one["codec"] for one in found["settings"] if "one" not in one["networks"]] == ["own"] * 3
    assert {row["network"] for row in found["nominal"] if row["codec"] == "own"} == {"two"}
    lines = as_text(found).splitlines()
    start = lines.index("one, of the originals: no labels")
    end = lines.index("two, of the originals: no labels")
    assert [line.split()[0] for line in lines[start + 2 : end - 1]] == ["base"] * 3 + ["ours"] * 3


def test_a_setting_that_one_network_reads_is_on_its_curve_alone() -> None:
    """A setting far off the line bends the curve of the network that read it, and of no other."""
    off = measured("ours", 60, 0.8 * 5500, 0.7)
    (only_two,) = read_by([off], "two")
    some = sorted([*family("ours", 0.8), only_two], key=lambda one: one.quality)
    with_it, without = (make(family("base"), x, labelled=False) for x in (some, family("ours", 0.8)))
    assert rows(with_it, network="one") == rows(without, network="one")
    (row,) = rows(with_it, network="two")
    assert row["points"][1]["bytes_change"]["value"] < -25


def test_the_divergence_at_the_same_quality() -> None:
    """Ratios of means, paired: what a draw of pictures does to both is no doubt."""
    losses = {20: 1.8, 35: 1, 50: 0.7, 75: 0.2}
    ours = [measured("ours", q, 5000 + 100 * q, loss) for q, loss in losses.items()]
    found = make(family("base"), ours)
    expected = {20: 1.8 / 1.2, 50: 1, 75: 0.2 / 0.4}
    assert [(row["codec"], row["quality"], row["network"]) for row in found["nominal"]] == [
        ("ours", quality, network) for quality in expected for network in ("one", "two")
    ]
    for row in found["nominal"]:
        for key in ("value", "low", "high"):
            assert row["ratio"][key] == pytest.approx(expected[row["quality"]], rel=1e-5)
    rng = np.random.default_rng(1)
    noisy = [
        replace(one, readings={"one": replace(one.readings["one"], divergence=rng.exponential(0.6, N))})
        for one in ours
    ]
    first = make(family("base"), noisy)["nominal"][0]["ratio"]
    above, below = noisy[0].readings["one"].divergence, family("base")[0].readings["one"].divergence
    assert first["value"] == pytest.approx(above.mean() / below.mean(), rel=1e-5)
    error = np.std(above / above.mean() - below / below.mean()) / N**0.5
    assert first["high"] - first["low"] == pytest.approx(3.92 * error * first["value"], rel=0.15)


def test_what_lies_beyond_the_settings_is_null() -> None:
    worse = [measured("worse", 50, 9000, 2.0), measured("worse", 90, 15_000, 0.9)]
    better = [measured("better", 50, 9000, 0.6), measured("better", 90, 15_000, 0.2)]
    found = make(family("base"), worse, better)
    for metric in ("divergence", "loss"):
        (row,) = rows(found, codec="worse", network="one", metric=metric)
        first, *others = row["points"]
        assert first["bytes_change"]["low"] < first["bytes_change"]["value"] < first["bytes_change"]["high"]
        for point in others:
            assert point["bytes_change"] == point["bytes"] == BEYOND
        (row,) = rows(found, codec="better", network="one", metric=metric)
        for point in row["points"][:2]:
            assert point["bytes_change"] == point["bytes"] == point["metric_change"] == BEYOND
        assert row["points"][2]["bytes"]["value"] > 9000
    assert "not reached: the codec has no file that is as good" in as_text(found)


def test_open_ends_of_intervals_are_words() -> None:
    for low, high, text in (
        (-8.04, -4.1, "-6.2 (-8.0..-4.1)"),
        (None, -4.1, "-6.2 (at most -4.1)"),
        (-8.04, None, "-6.2 (at least -8.0)"),
        (None, None, "-6.2 (unknown)"),
    ):
        assert in_words(interval({"value": -6.2, "low": low, "high": high}, 1)) == text
    assert in_words(interval(BEYOND, 1)) == "not reached"


def test_files_of_another_size_have_no_psnr() -> None:
    reduced = [replace(one, psnr=np.where(LUCK < 0.01, 30, np.nan)) for one in family("reduced", 0.5)]
    found = make(family("base"), reduced)
    assert [one["psnr"] for one in found["settings"][3:]] == [BEYOND] * 3
    assert as_text(found).splitlines()[-2].split()[0::13] == ["reduced", "-"]


def test_headers_left_out() -> None:
    found = make(family("base"), family("ours", 0.8), headerless=True)
    assert found["rate"] == "scan_bytes"
    (row,) = rows(found, network="one", metric="loss")
    first = family("base")[0]
    expected = 100 * ((0.8 * first.bytes.mean() - 300) / (first.bytes.mean() - 300) - 1)
    assert row["points"][0]["bytes_change"]["value"] == pytest.approx(expected, abs=0.02)
    assert "headerless bytes at equal divergence" in as_text(found)
    with pytest.raises(ValueError, match="webp writes no JPEG"):
        make(family("base"), family("webp", jpeg=False), headerless=True)


def test_without_labels_there_is_the_divergence_alone() -> None:
    found = make(family("base"), family("ours", 0.8), labelled=False)
    assert [row["metric"] for row in found["comparisons"]] == ["divergence"] * 3
    assert set(found["clean"]["one"]) == {"divergence", "agreement"}
    text = as_text(found)
    assert "equal divergence" in text and "no labels" in text
    assert "top-1" not in text and "cross-entropy" not in text


def test_text() -> None:
    lines = as_text(make(family("base"), family("ours", 0.8))).splitlines()
    titles = [line for line in lines if ": bytes at equal" in line]
    who = ("mean of the networks, and the worst of them", "one", "two")
    assert titles == [
        f"{name}: bytes at equal {metric}, % of change from base"
        for metric in ("divergence", "cross-entropy", "top-1")
        for name in who
    ]
    title = lines.index("two: bytes at equal cross-entropy, % of change from base")
    assert lines[title + 1].split() == ["codec", "q20", "q50", "q75", "BD-rate"]
    assert lines[title + 2].split() == ["ours", *["-20.0", "(-20.0..-20.0)"] * 4]
    one = measured("ours", 50, 0.8 * 8000, 0.7)
    cells = next(line for line in lines if line.startswith("ours") and " 50 " in line).split()
    assert cells[2:5] == [
        f"{one.bytes.mean():,.0f}",
        f"{one.scan_bytes.mean():,.0f}",
        f"{8 * one.bytes.mean() / PIXELS:.3f}",
    ]
    read = one.readings["one"]
    assert cells[5] == f"{read.divergence.mean():.3f}" and cells[6].startswith("±")
    assert cells[7:9] == [f"{100 * read.agrees.mean():.1f}", f"{read.loss.mean():.3f}"]
    assert cells[10] == f"{100 * read.top1.mean():.1f}"


def test_text_of_the_divergence_at_the_same_quality() -> None:
    losses = {20: 1.2, 50: 0.77, 75: 0.34}
    ours = [measured("ours", q, 5000 + 100 * q, loss) for q, loss in losses.items()]
    lines = as_text(make(family("base"), ours, read_by(family("own"), "two"))).splitlines()
    title = lines.index("divergence at the same quality, divided by the first reference's")
    assert [line.split() for line in lines[title + 1 : title + 8]] == [
        ["codec", "network", "q20", "q50", "q75"],
        ["ours", "one", "1.00", "(1.00..1.00)", "1.10", "(1.10..1.10)", "0.85", "(0.85..0.85)"],
        ["ours", "two", "1.00", "(1.00..1.00)", "1.10", "(1.10..1.10)", "0.85", "(0.85..0.85)"],
        ["own", "two", *["1.00", "(1.00..1.00)"] * 3],
        [],
        ["furthest", "from", "1:", "ours,", "0.85", "(0.85..0.85)", "for", "one", "at", "quality", "75"],
        ["furthest", "from", "1:", "own,", "1.00", "(1.00..1.00)", "for", "two", "at", "quality", "20"],
    ]


@pytest.mark.parametrize(("labelled", "shape"), [(True, (3, 2)), (False, (1, 2))])
def test_plot(labelled: bool, shape: tuple[int, int]) -> None:
    pytest.importorskip("matplotlib")
    from dnnjpeg.evaluate.plot import plot

    many = [family(f"codec {i}", 1 - i / 20) for i in range(5)]
    found = make(*many, labelled=labelled, references=("codec 0",))
    with Image.open(io.BytesIO(plot(found, "a title", "dnnjpeg evaluate --codec x"))) as image:
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
