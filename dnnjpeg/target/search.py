"""Searches among the files of a picture, which ask about one candidate after the other, and many in step."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnnjpeg.networks.criterion import Reading

STRIDE = 6


@dataclass(frozen=True)
class Encoded:
    """A file, and how it was made.

    subsampling: None is the table's own.
    met: False where the target was missed: no candidate keeps to the criterion, and this is the largest; or
        none is within the limit, and this is the smallest.
    divergence: of what the networks read in the file, nat: the mean of the networks. agrees: the share of the
        networks that name the same class first. Both are None where no network has read the file.
    tried: how many files the networks have read to find it.
    """

    data: bytes
    quality: float
    subsampling: str | None
    met: bool = True
    pruned: bool = False
    divergence: float | None = None
    agrees: float | None = None
    tried: int = 0

    def read_as(self, reading: "Reading", tried: int) -> "Encoded":
        return replace(self, divergence=reading.divergence, agrees=reading.agrees, tried=tried)


OnFound = Callable[[int, Encoded], object]

# Yields a candidate, is sent what is read in it.
Search = Generator[Encoded, "Reading", Encoded]


def climb(candidates: Iterator[Encoded], stride: int = STRIDE) -> Search:
    """Read the last of every `stride` candidates; before the first that is kept, the others of its group.

    candidates: from the smallest file up. Ends with the first that is kept of those, or with the last
    candidate of all, kept or not.
    """
    tried = 0
    while group := list(islice(candidates, stride)):
        *before, last = group
        tried += 1
        reading = yield last
        if reading.kept:
            for one in before:
                tried += 1
                smaller = yield one
                if smaller.kept:
                    return one.read_as(smaller, tried)
            return last.read_as(reading, tried)
    return replace(last.read_as(reading, tried), met=False)


def cheapest(candidates: Iterator[Encoded], price: float, stride: int = STRIDE) -> Search:
    """Read the last of every `stride` candidates; then those between it and its neighbours around the best.

    price: nat a byte. The best is the one of which divergence + price x bytes is least.
    candidates: from the smallest file up. As a divergence is not negative, the first whose bytes alone cost
    more than the best ends the search.
    """
    seen: list[Encoded] = []
    costs: dict[int, float] = {}
    readings: dict[int, Reading] = {}

    def cost(i: int) -> float:
        return price * len(seen[i].data) + readings[i].divergence

    def is_wanted(i: int) -> bool:
        return i not in costs and (not costs or price * len(seen[i].data) < min(costs.values()))

    while group := list(islice(candidates, stride)):
        seen += group
        last = len(seen) - 1
        if not is_wanted(last):
            break
        readings[last] = yield seen[last]
        costs[last] = cost(last)
    middle = min(costs, key=costs.__getitem__)
    for i in range(max(middle - stride + 1, 0), min(middle + stride, len(seen))):
        if is_wanted(i):
            readings[i] = yield seen[i]
            costs[i] = cost(i)
    best = min(costs, key=costs.__getitem__)
    return seen[best].read_as(readings[best], len(readings))


def together(
    searches: Sequence[Search],
    ask: Callable[[Sequence[int], Iterable[Encoded]], "Sequence[Reading]"],
    pool: ThreadPoolExecutor,
    on_found: OnFound | None = None,
) -> list[Encoded]:
    """The results of searches that go on in step, so that what they ask can be answered in one batch.

    ask: gets the numbers of the searches that go on, and the candidate of each.
    on_found: called with the number and the result of each search, soon after it ends.
    """
    found: dict[int, Encoded] = {}

    def advance(i: int, answer: "Reading | None") -> Encoded | None:
        try:
            return next(searches[i]) if answer is None else searches[i].send(answer)
        except StopIteration as end:
            found[i] = end.value
            return None

    answers: dict[int, Reading | None] = dict.fromkeys(range(len(searches)))
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
