"""Which settings are measured, and what is read off: against codecs whose curves are known by formula."""

from functools import cache
from math import log
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

from made_up import MadeUp, codec, convex, size

from dnnjpeg.evaluate.codecs import load_codec
from dnnjpeg.evaluate.curves import Curve
from dnnjpeg.evaluate.ladder import Ladder, climb, goodness
from dnnjpeg.evaluate.measure import Measurement, measure
from dnnjpeg.files.dataset import Dataset
from dnnjpeg.networks.load import load_network
from dnnjpeg.networks.measurer import Measurer

NETWORKS = Path(__file__).with_name("networks.py")
QUALITIES = st.integers(1, 100).map(float)
GRIDS = st.sets(QUALITIES, min_size=1, max_size=5)


def ladder_of(measure: MadeUp, grid: set[float], whole: bool = True, rate: str = "bytes") -> Ladder:
    ladder = Ladder(codec(whole=whole), measure, rate)
    for quality in grid:
        ladder.at(quality, ["one"])
    return ladder


def read_off(ladder: Ladder, target: float, metric: str = "divergence", network: str = "one") -> float:
    """Bytes at a goodness."""
    some = [one for one in ladder.settings if network in one.readings]
    sizes = np.array([[one.bytes.mean() for one in some]])
    values = np.array([[goodness(one.readings[network], metric) for one in some]])
    return float(np.exp(Curve(sizes, values).log_bytes_at(np.array([target])))[0])


def around(ladder: Ladder, target: float, metric: str) -> tuple[list[Measurement], list[Measurement]]:
    """Those that are no better than a goodness, and those that are better, by quality."""
    worse = [one for one in ladder.settings if goodness(one.readings["one"], metric) <= target]
    better = [one for one in ladder.settings if goodness(one.readings["one"], metric) > target]
    return worse, better


@given(GRIDS, GRIDS, st.floats(1.5, 99.5), st.sampled_from(["divergence", "loss"]), st.booleans())
def test_two_grids_of_a_codec_agree(
    grid: set[float], other: set[float], at: float, metric: str, whole: bool
) -> None:
    known = MadeUp()
    target = goodness(known.read("one", size(at)), metric)
    ladders = [ladder_of(MadeUp(), some, whole) for some in (grid, other)]
    for ladder in ladders:
        ladder.settle("one", metric, target)
    found = [read_off(ladder, target, metric) for ladder in ladders]
    assert found[0] == pytest.approx(found[1], rel=0.01)
    assert found[0] == pytest.approx(known.bytes_at(target, metric), rel=0.01)


def test_straight_lines_on_a_coarse_grid_would_not_have_agreed() -> None:
    """What was done once: the mean divergence itself, over log bytes, on the settings that were given."""
    known = MadeUp()
    target = goodness(known.read("one", size(35)), "divergence")
    linear, settled = [], []
    for grid in ((20, 50, 75), (10, 30, 40, 60, 90)):
        log_bytes = [log(size(quality)) for quality in grid]
        losses = [convex(size(quality)) for quality in grid]
        linear.append(np.exp(np.interp(-convex(size(35)), np.negative(losses), log_bytes)))
        ladder = ladder_of(MadeUp(), set(grid))
        ladder.settle("one", "divergence", target)
        settled.append(read_off(ladder, target))
    assert linear[0] / size(35) > 1.08 and linear[0] / linear[1] > 1.06
    assert settled == pytest.approx([size(35)] * 2, rel=0.002)


@given(GRIDS, st.floats(0.5, 105), st.sampled_from(["divergence", "loss"]), st.booleans(), st.booleans())
def test_the_two_around_an_answer_differ_by_less_than_a_tenth(
    grid: set[float], at: float, metric: str, whole: bool, headerless: bool
) -> None:
    rate = "scan_bytes" if headerless else "bytes"
    measure = MadeUp()
    target = goodness(measure.read("one", size(at)), metric)
    ladder = ladder_of(measure, grid, whole, rate)
    ladder.settle("one", metric, target)
    worse, better = around(ladder, target, metric)
    if not better:
        assert at >= 100 and worse[-1].quality == 100
    elif not worse:
        assert at < 1 and better[0].quality == 1
    else:
        assert better[0].bytes.mean() < 1.1 * worse[-1].bytes.mean()
        assert better[0].scan_bytes.mean() < 1.1 * worse[-1].scan_bytes.mean()
    assert len(measure.asked) <= len(grid) + 12


@given(GRIDS, st.integers(0, 2**32), st.floats(1, 99), st.booleans())
def test_codecs_that_jump_are_settled_as_far_as_they_have_qualities(
    grid: set[float], seed: int, at: float, whole: bool
) -> None:
    """From quality to quality the bytes grow by anything from next to nothing to a fourth."""
    log_bytes = 7 + np.cumsum(0.22 * np.random.default_rng(seed).uniform(0.01, 1, 100) ** 3)
    measure = MadeUp(
        lambda quality: float(np.exp(np.interp(quality, range(1, 101), log_bytes))),
        lambda count: 1000 / count,
    )
    target = goodness(measure.read("one", measure.bytes_of(at)), "divergence") + 1e-9
    ladder = ladder_of(measure, grid, whole)
    ladder.settle("one", "divergence", target)
    worse, better = around(ladder, target, "divergence")
    near = better[0].scan_bytes.mean() < 1.1 * worse[-1].scan_bytes.mean()
    assert near or better[0].quality - worse[-1].quality < (1.01 if whole else 0.11)


@given(GRIDS, st.floats(1, 99))
def test_all_bytes_in_one_step(grid: set[float], at: float) -> None:
    """Interpolation is of no help there."""
    measure = MadeUp(lambda quality: 1000 + quality + (50_000 if quality > at else 0))
    target = goodness(measure.read("one", 1500), "divergence")
    ladder = ladder_of(measure, grid)
    ladder.settle("one", "divergence", target)
    worse, better = around(ladder, target, "divergence")
    assert better[0].quality == worse[-1].quality + 1
    assert len(measure.asked) <= len(grid) + 20


@settings(deadline=None)
@given(GRIDS, st.integers(0, 2**32), st.lists(st.floats(-2, 3), min_size=1, max_size=4), st.booleans())
def test_noise_ends_after_so_many_settings_and_none_is_measured_twice(
    grid: set[float], seed: int, targets: list[float], whole: bool
) -> None:
    def any_bytes(quality: float) -> float:
        return float(np.random.default_rng([seed, round(10 * quality)]).uniform(1000, 50_000))

    def any_loss(count: float) -> float:
        return float(np.random.default_rng([seed, round(count)]).uniform(0.05, 5))

    measure = MadeUp(any_bytes, any_loss)
    ladder = ladder_of(measure, grid, whole)
    for target in targets:
        ladder.settle("one", "divergence", target)
    assert len(measure.asked) == len(set(measure.asked)) <= len(grid) + 20 * len(targets)
    assert [one.quality for one in ladder.settings] == sorted({quality for quality, _ in measure.asked})
    step = 1 if whole else 0.1
    for quality, _ in measure.asked:
        assert 1 <= quality <= 100 and quality == round(step * round(quality / step), 1)


def test_the_ends_are_found_where_more_quality_is_fewer_bytes() -> None:
    """A codec that changes its ways between 60 and 90: the largest of the settings is not the finest."""
    measure = MadeUp(lambda quality: size(quality) * (0.5 if 60 < quality < 90 else 1))
    ladder = ladder_of(measure, {20, 60, 80})
    target = goodness(measure.read("one", size(97)), "divergence")
    ladder.settle("one", "divergence", target)
    assert read_off(ladder, target) == pytest.approx(size(97), rel=0.01)
    assert len(measure.asked) <= 10


def test_a_setting_is_measured_for_those_who_have_not_read_it() -> None:
    measure, counts = MadeUp(), []
    ladder = Ladder(codec(), measure)
    ladder.on_reading = counts.append
    ladder.at(50, ["one"])
    both = ladder.at(50, ["one", "two"])
    assert ladder.at(50, ["two"]) is both
    assert measure.asked == [(50, "one"), (50, "two")] and counts == [1, 1]
    assert list(both.readings) == ["one", "two"]
    ladder.at(20, ["two", "one"])
    assert [one.quality for one in ladder.settings] == [20, 50] and counts == [1, 1, 2]


def test_settings_that_others_read_are_not_taken_for_ones_own() -> None:
    """A network that sees far more: its own settings are measured for it, those of others are not read."""
    measure = MadeUp(divergence_of={"one": convex, "two": lambda count: convex(3 * count)})
    ladder = ladder_of(measure, {20, 75})
    for quality in range(30, 60):
        ladder.at(quality, ["one"])
    before = len(measure.asked)
    ladder.at(20, ["two"])
    target = goodness(measure.read("two", size(45)), "divergence")
    ladder.settle("two", "divergence", target)
    assert {name for _, name in measure.asked[before:]} == {"two"}
    assert read_off(ladder, target, network="two") == pytest.approx(size(45), rel=0.01)


LOSSES = {
    "one": convex,
    "two": lambda count: convex(1.2 * count) * (1 + 200 / count),
}


@pytest.mark.parametrize("metrics", [("divergence",), ("divergence", "loss")])
def test_climb_answers_for_each_network_that_reads(metrics: tuple[str, ...]) -> None:
    made = {
        "base": MadeUp(divergence_of=LOSSES),
        "table": MadeUp(lambda quality: 0.8 * size(quality), LOSSES),
        "own": MadeUp(lambda quality: 1.3 * size(quality) ** 0.97, LOSSES),
    }
    ladders = {name: Ladder(codec(name, name != "table"), measure) for name, measure in made.items()}
    readers = {"base": ["one", "two"], "table": ["one", "two"], "own": ["two"]}
    scores = {name: dict.fromkeys(metrics[1:], -1) for name in ("one", "two")}
    climb(ladders, readers, ["base"], (20, 50, 75), scores)
    assert {name for _, name in made["own"].asked} == {"two"}
    for name, ladder in ladders.items():
        assert len(made[name].asked) == len(set(made[name].asked)) < 60
        for network in readers[name]:
            for quality in (20, 50, 75):
                for metric in metrics:
                    target = goodness(made["base"].read(network, size(quality)), metric)
                    truth = made[name].bytes_at(target, metric, network)
                    assert read_off(ladder, target, metric, network) == pytest.approx(truth, rel=0.01)
    assert {20, 50, 75} <= {one.quality for one in ladders["table"].settings if len(one.readings) == 2}


@pytest.mark.parametrize("seed", range(20, 24))
def test_climb_comes_back_to_questions_whose_answers_were_moved(seed: int) -> None:
    """Settings are noisy, so that some are pooled: one that is added may move other answers."""
    noise = np.random.default_rng(seed).normal(0, 0.4, 1000)

    def noisy(count: float) -> float:
        return convex(count) * float(np.exp(noise[round(count) % 1000]))

    made = {"base": MadeUp(divergence_of=noisy), "other": MadeUp(lambda q: 0.9 * size(q), noisy)}
    ladders = {name: Ladder(codec(name), measure) for name, measure in made.items()}
    climb(ladders, {name: ["one"] for name in made}, ["base"], (20, 35, 50, 75), {"one": {"loss": -1}})
    before = [len(measure.asked) for measure in made.values()]
    for ladder in ladders.values():
        for quality in (20, 35, 50, 75):
            for metric in ("divergence", "loss"):
                target = goodness(made["base"].read("one", size(quality)), metric)
                assert not ladder.settle("one", metric, target)
    assert [len(measure.asked) for measure in made.values()] == before
    assert max(before) < 60


def test_climb_leaves_room_for_intervals() -> None:
    made = {"base": MadeUp(), "worse": MadeUp(lambda quality: 2 * size(quality), lambda b: 1.5 * convex(b))}
    ladders = {name: Ladder(codec(name), measure) for name, measure in made.items()}
    climb(ladders, {name: ["one"] for name in ladders}, ["base"], (30, 60), {})
    for ladder in ladders.values():
        losses = [one.readings["one"].divergence.mean() for one in ladder.settings]
        assert max(losses) > 1.25 * convex(size(30)) and min(losses) < 0.8 * convex(size(60))


def test_whole_qualities_beside_a_reference_that_has_others() -> None:
    made = {"base": MadeUp(), "whole": MadeUp(lambda quality: 1.1 * size(quality))}
    ladders = {name: Ladder(codec(name, name == "whole"), measure) for name, measure in made.items()}
    climb(ladders, {name: ["one"] for name in ladders}, ["base"], (20.5, 50.2), {})
    assert all(quality == int(quality) for quality, _ in made["whole"].asked)
    for quality in (20.5, 50.2):
        target = goodness(made["base"].read("one", size(quality)), "divergence")
        assert read_off(ladders["whole"], target) == pytest.approx(size(quality), rel=0.01)


def test_two_grids_of_small_files_agree(photos: Dataset) -> None:
    """Pillow 4:4:4, read off where 4:2:0 has its qualities. Most of these files is headers: settings a tenth
    of the bytes apart would be far apart.
    """
    networks = {name: load_network(f"{NETWORKS}:{name}") for name in ("one", "two")}
    measurer = Measurer(photos, networks)
    at_420 = [measure(measurer, load_codec("pillow"), quality) for quality in (30, 60)]
    codec = load_codec("pillow,subsampling=4:4:4")
    once = cache(lambda codec, quality, names: measure(measurer, codec, quality, names))
    for network in networks:
        targets = [goodness(one.readings[network], "divergence") for one in at_420]
        found = []
        for grid in ({10, 50, 90}, {20, 35, 75}):
            ladder = Ladder(codec, lambda codec, quality, names: once(codec, quality, tuple(names)))
            for quality in grid:
                ladder.at(quality, [network])
            for target in targets:
                ladder.settle(network, "divergence", target)
            found.append([read_off(ladder, target, network=network) for target in targets])
        assert found[0] == pytest.approx(found[1], rel=0.01)
