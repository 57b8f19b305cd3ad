"""The search for the smallest file that is kept, without networks."""

from hypothesis import given
from hypothesis import strategies as st

from dnnjpeg.target import Encoded, climb


@given(verdicts=st.lists(st.booleans(), min_size=1, max_size=40), stride=st.integers(1, 8))
def test_climb(verdicts, stride):
    """The search against the rule in words, for every pattern of what is kept."""
    candidates = [Encoded(bytes(i), i, None) for i in range(len(verdicts))]
    search = climb(iter(candidates), stride)
    asked, kept = [], None
    while True:
        try:
            asked.append(search.send(kept).quality)
        except StopIteration as end:
            found = end.value
            break
        kept = verdicts[asked[-1]]
    lasts = sorted({*range(stride - 1, len(verdicts), stride), len(verdicts) - 1})
    hits = [last for last in lasts if verdicts[last]]
    assert len(set(asked)) == len(asked)
    if not hits:
        assert asked == lasts
        assert (found.quality, found.kept) == (len(verdicts) - 1, False)
    else:
        group = range(max([-1, *(last for last in lasts if last < hits[0])]) + 1, hits[0] + 1)
        assert found.kept
        assert found.quality == min(i for i in group if verdicts[i])
        assert set(asked) <= {*lasts, *group}
