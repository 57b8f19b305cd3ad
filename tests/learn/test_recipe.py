"""Recipes: what they refuse, how rates fade, and which epoch is kept."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnjpeg.learn.recipe import Epoch, Recipe, best_epoch

ACCURACIES = st.lists(st.integers(0, 50), min_size=1, max_size=12)


def log_of(right: list[int], pictures: int) -> list[Epoch]:
    """Epochs with so many pictures right, and losses that fall."""
    return [
        Epoch(number, 1.0, 1 / number, count / pictures, 1.0, None, None)
        for number, count in enumerate(right, 1)
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [("epochs", 0), ("batch", 1.5), ("lr", -1), ("price", float("nan")), ("schedule", "linear"),
     ("finetune", "some"), ("pad", -1), ("seed", -1)],
)  # fmt: skip
def test_recipe_names_the_field(field, value) -> None:
    with pytest.raises(ValueError, match=f"{field} is"):
        Recipe(**{field: value})


def test_schedules() -> None:
    shares = np.arange(0, 240) / 240
    steps = [Recipe(schedule="steps").fade(share) for share in shares]
    assert [int(np.argmax(np.array(steps) < x)) for x in (0.5, 0.05, 0.005)] == [150, 180, 210]
    cosine = [Recipe().fade(share) for share in shares]
    assert cosine[0] == 1 and cosine[120] == pytest.approx(0.5) and cosine[-1] < 1e-3
    assert (np.diff(cosine) < 0).all()


@pytest.mark.parametrize(
    ("right", "kept"),
    [([60, 64, 60], 3), ([60, 64, 59], 2), ([64, 60, 59], 2), ([100, 99], 1), ([0, 0], 2)],
)
def test_the_last_that_is_the_best_but_for_chance(right, kept) -> None:
    """Of 64 in 100 the standard error is 4.8 pictures, of all of them or none it is none."""
    assert best_epoch(log_of(right, 100), Recipe(), 100).epoch == kept


@given(ACCURACIES)
def test_accuracy_that_is_kept(right) -> None:
    """Against the variance of as many draws; with ever more pictures it is the highest."""
    log, most = log_of(right, 50), max(right) / 50
    error = math.sqrt(np.var(np.arange(50) < max(right)) / 50)
    best = best_epoch(log, Recipe(), 50)
    assert best.val_top1 > most - error - 1e-9
    assert all(epoch.val_top1 < most - error + 1e-9 for epoch in log[best.epoch :])
    assert best_epoch(log, Recipe(), 10**9).val_top1 == most
    assert best_epoch(log, Recipe(finetune="all"), 50) is log[-1]


@given(ACCURACIES)
def test_what_was_the_best_so_far_is_at_hand_at_the_end(right) -> None:
    """A training keeps the weights of an epoch where it is the best until then."""
    log = log_of(right, 50)
    kept = [epoch for epoch in log if best_epoch(log[: epoch.epoch], Recipe(), 50) is epoch]
    assert kept[-1] is best_epoch(log, Recipe(), 50)
