"""Searches among files, against their rules in words."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch")

from dnnjpeg.networks.criterion import Reading
from dnnjpeg.target.search import Encoded, Search, cheapest, climb, together


def follow(search: Search, answers: Any) -> tuple[Encoded, list[int]]:
    """The result of a search that is answered so, and which candidates it asked about; these are numbered by
    their qualities.
    """
    asked: list[int] = []
    try:
        one = next(search)
        while True:
            asked.append(int(one.quality))
            answer = answers[asked[-1]]
            one = search.send(Reading(answer > 0, float(answer), 1.0))
    except StopIteration as end:
        assert len(set(asked)) == len(asked) == end.value.tried
        assert end.value.divergence == answers[int(end.value.quality)]
        return end.value, asked


@given(verdicts=st.lists(st.booleans(), min_size=1, max_size=40))
def test_climb(verdicts):
    candidates = [Encoded(bytes(i), i, None) for i in range(len(verdicts))]
    found, asked = follow(climb(iter(candidates)), verdicts)
    last = verdicts.index(True) if any(verdicts) else len(verdicts) - 1
    assert asked == list(range(last + 1))
    assert (found.quality, found.met) == (last, any(verdicts))


@given(
    files=st.lists(st.tuples(st.integers(1, 300), st.sampled_from((0.0, 0.5, 1.0, 2.0, 5.0))), min_size=1),
    price=st.sampled_from((2**-12, 2**-7, 2**-4, 1.0)),
    stride=st.integers(1, 8),
)
def test_cheapest(files, price, stride):
    files.sort(key=lambda file: file[0])
    divergences = [lost for _, lost in files]
    costs = [price * size + lost for size, lost in files]
    candidates = [Encoded(bytes(size), i, None) for i, (size, _) in enumerate(files)]
    found, asked = follow(cheapest(iter(candidates), price, stride), divergences)
    lasts = sorted({*range(stride - 1, len(files), stride), len(files) - 1})
    middle = min(lasts, key=lambda i: costs[i])
    around = range(max(middle - stride + 1, 0), min(middle + stride, len(files)))
    assert found.met
    assert costs[int(found.quality)] == min(costs[i] for i in {*lasts, *around})
    assert set(asked) <= {*lasts, *around}
    if stride == 1:
        assert costs[int(found.quality)] == min(costs)


@given(
    lengths=st.lists(st.integers(1, 30), max_size=6),
    stride=st.integers(1, 7),
    threads=st.integers(1, 3),
)
def test_company_changes_nothing(lengths, stride, threads):
    rows = [[Encoded(bytes(i), 100 * row + i, None) for i in range(n)] for row, n in enumerate(lengths)]
    lost = {one.quality: (7 * one.quality) % 5 / 4 for row in rows for one in row}

    def ask(which, candidates):
        found = list(candidates)
        assert [one.quality // 100 for one in found] == list(which)
        return [Reading(True, lost[one.quality], 1.0) for one in found]

    with ThreadPoolExecutor(threads) as pool:
        both = together([cheapest(iter(row), 0.01, stride) for row in rows], ask, pool)
    alone = [follow(cheapest(iter(row), 0.01, stride), lost)[0] for row in rows]
    assert both == alone
