"""Searches among the candidates of a picture. Many searches run together, for networks to read batches."""

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

    data: the JPEG file.
    quality: its quality, 1..100.
    subsampling: its chroma subsampling. None: the table's.
    met: False if the target was missed. If no candidate meets a criterion, this is the largest file. If no
        candidate is within a limit, it is the smallest.
    pruned: whether coefficients were dropped.
    divergence: distance of what the networks read in the file from what they read in the original: the mean
        of the networks. Of classifiers it is the divergence, in nat.
    agrees: mean of how much of the answer is the same; of classifiers the share of the networks that name the
        same class first. Both are None if no network has read the file.
    tried: number of files that the networks have read for this picture.
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


def climb(candidates: Iterable[Encoded]) -> Search:
    """Search for the smallest file that meets the criterion.

    candidates: at least one, from the smallest file up.

    Candidates are read in turn, until one meets the criterion. If none does, the result is the last.
    """
    for tried, one in enumerate(candidates, 1):
        reading = yield one
        if reading.met:
            return one.read_as(reading, tried)
    return replace(one.read_as(reading, tried), met=False)


def cheapest(candidates: Iterator[Encoded], price: float, stride: int = STRIDE) -> Search:
    """Search for the file with the least divergence + price x bytes.

    candidates: from the smallest file up.
    price: nat a byte.

    The last of every `stride` candidates is read, then those around the best of them. Divergences are not
    negative. So the search ends at the first candidate whose bytes alone cost more than the best.
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
    """Run searches together, and answer their questions in batches. Returns the results.

    ask: is called with the numbers of the searches that are not finished, and with a candidate of each.
    on_found: called with the number and the result of a search, soon after it ends.
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
