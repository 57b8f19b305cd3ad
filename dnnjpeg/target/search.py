"""Searches among the candidates of a picture. Many searches run together, for networks to read batches."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

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
    """

    data: bytes
    quality: float
    subsampling: str | None
    met: bool = True
    pruned: bool = False


OnFound = Callable[[int, Encoded], object]

# Yields a candidate, and gets back whether it meets the criterion, or its divergence.
Search = Generator[Encoded, float, Encoded]


def climb(candidates: Iterator[Encoded], stride: int = STRIDE) -> Search:
    """Search for the smallest file that meets the criterion.

    candidates: from the smallest file up.

    The last of every `stride` candidates is read, until one meets the criterion. Then the others of its group
    are read. The result is the first of them that meets it, or the last candidate of all.
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
    """Search for the file with the least divergence + price x bytes.

    candidates: from the smallest file up.
    price: nat a byte.

    The last of every `stride` candidates is read, then those around the best of them. Divergences are not
    negative. So the search ends at the first candidate whose bytes alone cost more than the best.
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
    """Run searches together, and answer their questions in batches. Returns the results.

    ask: is called with the numbers of the searches that are not finished, and with a candidate of each.
    on_found: called with the number and the result of a search, soon after it ends.
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
