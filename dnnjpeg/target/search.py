"""Searches among the files of a picture, which ask about one candidate after the other, and many in step."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

STRIDE = 6


@dataclass(frozen=True)
class Encoded:
    """A file, and how it was made.

    subsampling: None is the table's own.
    met: False where the target was missed: no candidate keeps to the criterion, and this is the largest; or
        none is within the limit, and this is the smallest.
    """

    data: bytes
    quality: float
    subsampling: str | None
    met: bool = True
    pruned: bool = False


OnFound = Callable[[int, Encoded], object]

# Yields a candidate, is sent whether it is kept, or its divergence.
Search = Generator[Encoded, float, Encoded]


def climb(candidates: Iterator[Encoded], stride: int = STRIDE) -> Search:
    """Read the last of every `stride` candidates; before the first that is kept, the others of its group.

    candidates: from the smallest file up. Ends with the first that is kept of those, or with the last
    candidate of all, kept or not.
    """
    while group := list(islice(candidates, stride)):
        *before, last = group
        if (yield last):
            for one in before:
                if (yield one):
                    return one
            return last
    return replace(last, met=False)


def cheapest(candidates: Iterator[Encoded], price: float, stride: int = STRIDE) -> Search:
    """Read the last of every `stride` candidates; then those between it and its neighbours around the best.

    price: nat a byte. The best is the one of which divergence + price x bytes is least.
    candidates: from the smallest file up. As a divergence is not negative, the first whose bytes alone cost
    more than the best ends the search.
    """
    seen: list[Encoded] = []
    costs: dict[int, float] = {}

    def is_wanted(i: int) -> bool:
        return i not in costs and (not costs or price * len(seen[i].data) < min(costs.values()))

    while group := list(islice(candidates, stride)):
        seen += group
        last = len(seen) - 1
        if not is_wanted(last):
            break
        costs[last] = price * len(seen[last].data) + (yield seen[last])
    middle = min(costs, key=costs.__getitem__)
    for i in range(max(middle - stride + 1, 0), min(middle + stride, len(seen))):
        if is_wanted(i):
            costs[i] = price * len(seen[i].data) + (yield seen[i])
    return seen[min(costs, key=costs.__getitem__)]


def together(
    searches: Sequence[Search],
    ask: Callable[[Sequence[int], Iterable[Encoded]], Sequence[float]],
    pool: ThreadPoolExecutor,
    on_found: OnFound | None = None,
) -> list[Encoded]:
    """The results of searches that go on in step, so that what they ask can be answered in one batch.

    ask: gets the numbers of the searches that go on, and the candidate of each.
    on_found: called with the number and the result of each search, soon after it ends.
    """
    found: dict[int, Encoded] = {}

    def advance(i: int, answer: float | None) -> Encoded | None:
        try:
            return next(searches[i]) if answer is None else searches[i].send(answer)
        except StopIteration as end:
            found[i] = end.value
            return None

    answers: dict[int, float | None] = dict.fromkeys(range(len(searches)))
    while answers:
        asked = zip(answers, pool.map(advance, answers.keys(), answers.values()), strict=True)
        candidates = {i: one for i, one in asked if one is not None}
        if on_found is not None:
            for i in answers.keys() - candidates.keys():
                on_found(i, found[i])
        answers = {}
        if candidates:
            answers.update(zip(candidates, ask(list(candidates), candidates.values()), strict=True))
    return [found[i] for i in range(len(searches))]
