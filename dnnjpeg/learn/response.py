"""Tables from real files: measure what damage costs the networks, model it, and spend the bytes accordingly.

A trial encodes all pictures at some tables, decodes the files and reads them. It gives the mean loss and the
damage: of each frequency of Y, Cb and Cr, the mean squared error of coefficients that were lost (became zero)
and of those that were only moved. Over many trials the loss follows

    loss = (Σ w (moved + r lost))^g

with a weight w for each band of frequencies, a ratio r for each channel and one exponent g. The damage of any
table can be computed without a network and its bytes by encoding alone, so the best table under the model is
cheap to find. It is then tried itself, the model is fitted anew, and so on: in each round the step from the
tables before is bounded, because the model holds near the trials it is made of.
"""

import io
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnnjpeg.codec.encoder import encode
from dnnjpeg.files import write_atomic
from dnnjpeg.learn.codec import to_coefficients
from dnnjpeg.learn.objective import Objective
from dnnjpeg.point import SUBSAMPLINGS, OperatingPoint
from dnnjpeg.table import standard_table

Steps = NDArray[np.float64]  # 3 x 64, of Y, Cb and Cr

_STANDARD = (10, 20, 30, 40, 50, 65, 80, 90)  # qualities of the standard trials
_RANDOM = 16  # further trials, of standard tables with their bands scaled at random
_ROUNDS = 2
_TRUST = 0.45  # bound of |log step| from one round to the next
_PICTURES = 120  # to count bytes with

_DIAGONAL = np.add.outer(np.arange(8), np.arange(8)).ravel()
# Bands of u + v: eight of luma, four of each chroma.
_LUMA_BAND = np.array([0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 7, 7, 7, 7, 7])[_DIAGONAL]
_CHROMA_BAND = np.array([0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3])[_DIAGONAL]
_BAND = np.stack([_LUMA_BAND, 8 + _CHROMA_BAND, 12 + _CHROMA_BAND])
_CHANNEL = np.repeat([0, 1, 2], [8, 4, 4])  # of each band


@dataclass(frozen=True)
class Trial:
    """A measured point. moved, lost: 3 x 64, squared units of a coefficient, at the pictures' resolution."""

    point: OperatingPoint
    bytes: float
    loss: float
    moved: Steps
    lost: Steps


@dataclass(frozen=True)
class Response:
    """The fitted model. weights: 3 x 64; ratio: 3, of lost to moved; error: rms of log loss at the trials."""

    weights: Steps
    ratio: NDArray[np.float64]
    exponent: float
    error: float

    def loss(self, moved: Steps, lost: Steps) -> float:
        """Mean loss that the model expects of this damage, 3 x 64 each."""
        damage = float((self.weights * (moved + self.ratio[:, None] * lost)).sum())
        return math.exp(self.exponent * math.log(max(damage, 1e-12)))


def learn(
    objective: Objective,
    qualities: Sequence[float],
    subsamplings: Sequence[str],
    *,
    tables: int = 2,
    seed: int = 0,
    state: Path | None = None,
    deadline: float | None = None,
    on_trial: Callable[[Trial, int, int], None] = lambda trial, count, total: None,
) -> list[OperatingPoint]:
    """Candidates near the rates of standard files of these qualities, for each subsampling, all rounds'.

    objective: its loss should be the divergence: labels add noise that no table can help.
    tables: 2 (Cb and Cr share one) or 3.
    state: file of the trials, written after each; with it an interrupted run goes on where it stood.
    deadline: of `time.monotonic`, after which no further candidate is sought.
    on_trial: called after each trial with it, its number and the number of all.

    Raises ValueError where the loss does not depend on the damage, and for `state` of another run.
    """
    identity = repr(([network.digest for network in objective.networks], len(objective), seed))
    known = _restore(state, identity) if state is not None and state.exists() else {}
    total = len(subsamplings) * (len(_STANDARD) + _ROUNDS * len(qualities)) + _RANDOM
    trials: list[Trial] = []

    def attempt(point: OperatingPoint) -> None:
        name = _name(point)
        if name not in known:
            known[name] = _try(objective, point)
            if state is not None:
                _save(state, identity, known)
        trials.append(known[name])
        on_trial(trials[-1], len(trials), total)

    for subsampling in subsamplings:
        for standard in _STANDARD:
            attempt(_point(_standard(standard), subsampling, tables))
    for steps, subsampling in _random(subsamplings, seed):
        attempt(_point(steps, subsampling, 3))
    bench = {s: _Bench(objective, s, seed) for s in subsamplings}
    best = {(s, q): _standard(q) for s in subsamplings for q in qualities}
    candidates = [_point(steps, s, tables) for (s, _), steps in best.items()]
    for _ in range(_ROUNDS):
        response = fit(trials)
        for (subsampling, quality), steps in best.items():
            if deadline is not None and time.monotonic() > deadline:
                return candidates
            best[subsampling, quality] = bench[subsampling].improve(response, steps, tables)
            candidates.append(_point(best[subsampling, quality], subsampling, tables))
            attempt(candidates[-1])
    return candidates


def fit(trials: Sequence[Trial]) -> Response:
    """The model of these trials: least squares of log loss, with weights drawn to those of the neighbouring
    bands and, of the same band, to each other in Cb and Cr.

    Raises ValueError where the losses are no positive numbers, or hardly differ.
    """
    losses = np.array([trial.loss for trial in trials])
    if not (losses > 0).all() or losses.max() < 1.1 * losses.min():
        raise ValueError(
            f"the loss is {losses.min():.4g} to {losses.max():.4g} over {len(trials)} very different tables: "
            "the networks do not see the difference"
        )
    target = torch.from_numpy(np.log(losses))
    moved, lost = (
        torch.from_numpy(np.stack([_by_band(getattr(trial, kind)) for trial in trials]))
        for kind in ("moved", "lost")
    )
    channel = torch.from_numpy(_CHANNEL)
    log_weights = torch.full((16,), -6.0, dtype=torch.float64, requires_grad=True)
    log_ratio = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    log_exponent = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [log_weights, log_ratio, log_exponent],
        max_iter=500,
        tolerance_grad=1e-9,
        line_search_fn="strong_wolfe",
    )

    def residuals() -> Tensor:
        weights = log_weights.exp()
        damage = (weights * (moved + lost * log_ratio[channel].exp())).sum(1)
        return log_exponent.exp() * damage.log() - target

    def closure() -> Tensor:
        optimizer.zero_grad()
        luma, blue, red = log_weights[:8], log_weights[8:12], log_weights[12:]
        apart = torch.cat([luma.diff(), blue.diff(), red.diff(), blue - red])
        misfit = (residuals() / 0.03).square().sum()  # 3 %: what two draws of the pictures differ by
        cost: Tensor = (
            misfit
            + (apart / 0.3).square().sum()
            + (log_ratio / 0.5).square().sum()
            + (log_exponent / 0.3).square()
        )
        cost.backward()  # type: ignore[no-untyped-call]
        return cost

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return Response(
            log_weights.exp().numpy()[_BAND],
            log_ratio.exp().numpy(),
            float(log_exponent.exp()),
            float(residuals().square().mean().sqrt()),
        )


def _save(file: Path, identity: str, known: Mapping[str, Trial]) -> None:
    buffer = io.BytesIO()
    trials = [
        (t.point.subsampling, t.point.tables, t.bytes, t.loss, torch.tensor(np.stack([t.moved, t.lost])))
        for t in known.values()
    ]
    torch.save({"identity": identity, "trials": trials}, buffer)
    write_atomic(file, buffer.getvalue())


def _restore(file: Path, identity: str) -> dict[str, Trial]:
    try:
        state = torch.load(file, weights_only=True)
        found, stored = state["identity"], state["trials"]
    except Exception as error:
        raise ValueError(f"{file} is not the state of trials: delete it to begin anew") from error
    if found != identity:
        raise ValueError(
            f"{file} is of trials with other networks, pictures or seed: delete it, or give those"
        )
    known = {}
    for subsampling, tables, size, loss, damage in stored:
        point = OperatingPoint.from_tables(tables, subsampling=subsampling)
        known[_name(point)] = Trial(point, size, loss, *damage.numpy())
    return known


def _name(point: OperatingPoint) -> str:
    return repr((point.subsampling, point.tables))


def _by_band(damage: Steps) -> NDArray[np.float64]:
    return np.bincount(_BAND.ravel(), damage.ravel(), 16).astype(np.float64)


def _try(objective: Objective, point: OperatingPoint) -> Trial:
    damage = np.zeros((2, 3, 64))

    def compare(part: slice, decoded: NDArray[np.uint8]) -> None:
        clean = objective.pixels(np.arange(part.start, part.stop))
        seen = torch.from_numpy(decoded).to(clean.device).permute(0, 3, 1, 2).float()
        for c, (z, y) in enumerate(zip(*map(to_coefficients, (clean, seen)), strict=True)):
            error = (y - z).square()
            # rounding to pixels leaves a lost coefficient not quite zero
            lost = error * (y.abs() < 0.25 * z.abs())
            for kind, part_of in enumerate((error - lost, lost)):
                damage[kind, c] += part_of.mean(1).sum(0).cpu().double().numpy()

    measured = objective.measure(point, compare)
    moved, lost = damage / len(objective)
    return Trial(point, float(measured.bytes.mean()), float(measured.loss.mean()), moved, lost)


def _standard(quality: float) -> Steps:
    luma, chroma = standard_table().at(quality).tables
    return np.array([luma, chroma, chroma], float)


def _random(subsamplings: Sequence[str], seed: int) -> Iterator[tuple[Steps, str]]:
    """Standard tables with each band scaled, within e^±0.8, and tilted from low to high frequencies."""
    generator = np.random.default_rng(seed)
    for i in range(_RANDOM):
        bands = generator.uniform(-0.8, 0.8, 16)
        bands[12:] = bands[8:12] + generator.uniform(-0.4, 0.4, 4)
        tilt = generator.uniform(-0.5, 0.5, 2)[[0, 1, 1]][:, None] * (_DIAGONAL - 4) / 4
        scale = np.exp(bands[_BAND] + tilt + generator.uniform(-0.5, 0.5, 2)[[0, 1, 1]][:, None])
        yield _standard((12, 20, 30, 45, 65, 80)[i % 6]) * scale, subsamplings[i % len(subsamplings)]


def _point(steps: Steps, subsampling: str, tables: int) -> OperatingPoint:
    luma, *chroma = (tuple(map(int, np.clip(np.rint(row), 1, 255))) for row in steps[:tables])
    return OperatingPoint(50, subsampling, luma, tuple(chroma))


class _Bench:
    """Some pictures on which tables are compared without a network: their damage, and their bytes."""

    def __init__(self, objective: Objective, subsampling: str, seed: int) -> None:
        index = np.sort(np.random.default_rng(seed).permutation(len(objective))[:_PICTURES])
        self.pictures = objective.dataset.pictures[index]
        self.subsampling = subsampling
        planes = to_coefficients(objective.pixels(index), subsampling)
        self.planes = [plane.reshape(-1, 64).T.cpu().numpy() for plane in planes]
        self.pool = ThreadPoolExecutor(os.cpu_count())

    def bytes(self, steps: Steps, tables: int) -> float:
        """Mean of a picture, baseline."""
        write = partial(encode, table=_point(steps, self.subsampling, tables), signature=False)
        return float(np.mean([len(file) for file in self.pool.map(write, self.pictures)]))

    def cost(self, response: Response, steps: Steps) -> Steps:
        """What each frequency adds to the model's sum, 3 x 64."""
        h, v = SUBSAMPLINGS[self.subsampling][0]
        # A frequency of subsampled chroma is a lower one of the picture.
        row, column = np.divmod(np.arange(64), 8)
        coarse = (row // v) * 8 + column // h
        result = np.empty((3, 64))
        for c, plane in enumerate(self.planes):
            index = np.rint(plane / steps[c][:, None])
            error = (index * steps[c][:, None] - plane) ** 2
            error *= np.where(index == 0, response.ratio[c], 1)
            result[c] = error.mean(1) * response.weights[c][coarse if c else slice(None)]
        return result

    def improve(self, response: Response, start: Steps, tables: int, iterations: int = 5) -> Steps:
        """Steps within the bound around `start` that lower the loss by as much for a byte in all frequencies:
        by as much as `start` would if all of it were made finer.
        """
        coarser = np.clip(np.rint(start * 1.15), 1, 255)
        price = (self.cost(response, coarser).sum() - self.cost(response, start).sum()) / (
            self.bytes(start, tables) - self.bytes(coarser, tables)
        )
        steps = start.copy()
        for _ in range(iterations):
            now = np.clip(np.rint(steps), 1, 255)
            up = np.minimum(np.maximum(np.rint(now * 1.2), now + 1), 255)
            loss = self.cost(response, up) - self.cost(response, now)
            if tables == 2:
                loss[1] = loss[1] + loss[2]
            size = self.bytes(now, tables)
            for c, k in np.ndindex(tables, 64):
                trial = now.copy()
                trial[c, k] = up[c, k]
                saved = max(size - self.bytes(trial, tables), 1e-6) if up[c, k] > now[c, k] else 1e-6
                ratio = math.log(price * saved / loss[c, k]) if loss[c, k] > 0 else 1.0
                steps[c, k] *= math.exp(min(max(0.4 * ratio, -0.3), 0.3))
            if tables == 2:
                steps[2] = steps[1]
            steps = np.clip(steps, start * math.exp(-_TRUST), start * math.exp(_TRUST))
        return np.clip(steps, 1, 255)
