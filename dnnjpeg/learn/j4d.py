"""J4D: gradient descent through a differentiable JPEG, with frozen networks.

Adam minimises mean loss + price x mean bytes. The parameters are the logarithms of the steps, and of the
hardness if it is learned. The rate is `entropy_rate`, as in the paper, or `scan_rate`. Processes started by
torchrun share each batch and add up their gradients, a few hundred numbers.
"""

import io
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch import distributed as dist

from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.learn.objective import Objective
from dnnjpeg.soft.jpeg import DifferentiableJPEG, to_coefficients
from dnnjpeg.soft.quantizer import Mode
from dnnjpeg.soft.rate import entropy_rate, scan_rate
from dnnjpeg.table.point import OperatingPoint

_ANNEALED = (4.0, 20.0)  # κ at the first and at the last step
_LEARNED = (1.0, 30.0, 100.0)  # the least κ, the first, the largest
_DECAY = 0.95  # of the mean over steps
_SAVE = 10  # steps from one saved state to the next


@dataclass(frozen=True)
class Settings:
    """Settings of `learn`.

    steps: number of steps of Adam.
    batch: pictures a step, in all processes together.
    part: pictures in memory at a time. `entropy_rate` is computed for each part, and is too low for a small
        one.
    lr: learning rate of Adam.
    rate: "scan" for `scan_rate`, "entropy" for `entropy_rate`.
    mode: mode of `quantize` for the pictures that the networks see. The gradients are the steady ones.
    hardness: "annealed" raises κ of the gradients from 4 to 20, for files that are rounded to the nearest.
        "learned" learns κ for each frequency, for files with the probabilistic quantizer. It needs mode
        "soft" or "sampled", because mode "hard" does not depend on κ.
    seed: seed of the order of the pictures, and of mode "sampled".
    """

    steps: int = 150
    batch: int = 100
    part: int = 25
    lr: float = 0.03
    rate: Literal["scan", "entropy"] = "scan"
    mode: Mode = "hard"
    hardness: Literal["annealed", "learned"] = "annealed"
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """The state after a step.

    step: number of steps done.
    loss: mean loss of the batch, in nat.
    bpp: estimated bits per pixel of the batch.
    """

    step: int
    loss: float
    bpp: float


def learn(
    objective: Objective,
    start: OperatingPoint,
    price: float,
    settings: Settings = Settings(),
    *,
    state: str | os.PathLike[str] | None = None,
    deadline: float | None = None,
    on_step: Callable[[Progress], object] = lambda progress: None,
) -> OperatingPoint:
    """Find the point that minimises mean loss + price x mean bytes on the objective's pictures.

    start: gives the first tables (two or three) and the subsampling. Its hardness is not used.
    price: λ of the paper, > 0, in nat a byte. `StandardCurve.price` gives the usual one for a quality.
    state: file that keeps the state of the descent, every ten steps. If the file exists, the descent
        continues from it, with the same result as without the interruption.
    deadline: a time of `time.monotonic`, in seconds. A step that would probably end later is not started.
    on_step: called after each step.

    Returns a point whose steps are geometric means of about the last 20 iterates, rounded. Its quality is
    that of the most similar standard tables, until it is measured.

    Raises ValueError if the price is not above 0, if the price is so high that every step becomes 255, or if
    the state belongs to another descent.
    """
    if not 0 < price < math.inf:
        raise ValueError(f"price is {price}, expected a number above 0, in nat a byte")
    for network in objective.networks:
        network.need_gradients("j4d", "use the method slopes")
    descent = _Descent(objective, start, price, settings)
    file = None if state is None else Path(state)
    if file is not None and file.exists():
        descent.restore(file)
    while descent.step < settings.steps:
        progress, is_late = descent.advance(deadline)
        if file is not None and descent.rank == 0 and (is_late or descent.step % _SAVE == 0):
            descent.save(file)
        on_step(progress)
        if is_late:
            break
    if file is not None and descent.rank == 0:
        descent.save(file)
    return descent.point()


class _Descent:
    """The parameters of a descent, with Adam and the running means."""

    def __init__(self, objective: Objective, start: OperatingPoint, price: float, settings: Settings) -> None:
        self.objective, self.subsampling = objective, start.subsampling
        self.price, self.settings = price, settings
        is_shared = dist.is_available() and dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if is_shared else (0, 1)
        self.step = 0
        self.jpeg = DifferentiableJPEG()
        self.log_q = torch.tensor(start.tables, dtype=torch.float32, device=objective.device).log()
        if is_shared:
            dist.broadcast(self.log_q, 0)
        self.log_kappa = torch.full_like(self.log_q, math.log(_LEARNED[1]))
        self.learned = [self.log_q, *([self.log_kappa] if settings.hardness == "learned" else [])]
        self.optimizer = torch.optim.Adam([tensor.requires_grad_() for tensor in self.learned], settings.lr)
        self.means = [torch.zeros_like(tensor) for tensor in self.learned]
        self.begun = round(float(self.log_q.detach().mean()), 2)  # tells starts apart, and not roundings

    def advance(self, deadline: float | None) -> tuple[Progress, bool]:
        """Do one step. Returns its progress, and whether a process has no time for the next step."""
        settings, began = self.settings, time.monotonic()
        if settings.hardness == "annealed":
            first, last = _ANNEALED
            share = self.step / max(settings.steps - 1, 1)
            self.log_kappa.fill_(math.log(first) + share * math.log(last / first))
        count = min(settings.batch, len(self.objective))
        index = _batch(len(self.objective), count, self.step, settings.seed)
        parts = np.array_split(index, -(-count // settings.part))
        self.optimizer.zero_grad(set_to_none=False)
        sums = torch.zeros(3, device=self.objective.device)  # of losses, of bits, of processes that are late
        for number in range(self.rank, len(parts), self.world):
            sums[:2] += self._accumulate(parts[number], number, count)
        now = time.monotonic()
        if deadline is not None and now + (now - began) >= deadline:
            sums[2] = 1
        self._add_up(sums)
        self.optimizer.step()
        with torch.no_grad():
            self.log_q.clamp_(0, math.log(255))
            self.log_kappa.clamp_(math.log(_LEARNED[0]), math.log(_LEARNED[2]))
            for mean, tensor in zip(self.means, self.learned, strict=True):
                mean.lerp_(tensor, 1 - _DECAY)
        self.step += 1
        loss, bits, late = sums.tolist()
        return Progress(self.step, loss / count, bits / (count * self.objective.dataset.pixels)), late > 0

    def _accumulate(self, part: NDArray[np.int64], number: int, count: int) -> Tensor:
        """Add the gradients of a part of the batch. Returns the sums of its losses and bits, float 2."""
        sums = torch.zeros(2, device=self.objective.device)
        with torch.random.fork_rng():
            if self.settings.mode == "sampled":  # the same draws, whichever process has this part
                key = [self.settings.seed, self.step, number]
                torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
            for index, pixels in self.objective.groups(part):
                decoded = self.jpeg(
                    pixels, self.log_q, self.log_kappa, self.settings.mode, self.subsampling, steady=True
                )
                bits = self._bits(pixels)
                losses, gradient = self.objective.gradient(decoded, index)
                torch.autograd.backward(
                    [decoded, bits], [gradient / count, torch.full_like(bits, self.price / 8 / count)]
                )
                sums += torch.stack([losses.sum(), bits.detach()])
        return sums

    def _bits(self, pixels: Tensor) -> Tensor:
        """Estimated bits of all these pictures together."""
        is_scan = self.settings.rate == "scan"
        planes = to_coefficients(pixels, self.subsampling, integers=is_scan)
        if not is_scan:
            return len(pixels) * entropy_rate(planes, self.log_q, self.log_kappa)
        mode: Mode = "sampled" if self.settings.mode == "sampled" else "hard"
        height, width = pixels.shape[-2:]
        bits = scan_rate(planes, self.log_q, self.log_kappa, height, width, self.subsampling, mode)
        return bits.sum()

    def _add_up(self, sums: Tensor) -> None:
        """Add up `sums` and the gradients over all processes, in place."""
        if self.world == 1:
            return
        gradients = [tensor.grad for tensor in self.learned if tensor.grad is not None]
        flat = torch.cat([sums, *(gradient.flatten() for gradient in gradients)])
        dist.all_reduce(flat)
        sums.copy_(flat[: len(sums)])
        for gradient, total in zip(gradients, flat[len(sums) :].chunk(len(gradients)), strict=True):
            gradient.copy_(total.view_as(gradient))

    def point(self) -> OperatingPoint:
        """The point of the running means, with steps rounded to integers."""
        weight = 1 - _DECAY**self.step
        q, *kappas = [
            (mean / weight).exp() if self.step else tensor.detach().exp()
            for mean, tensor in zip(self.means, self.learned, strict=True)
        ]
        if bool((self.log_q.exp().round() >= 255).all()):
            raise ValueError(
                f"price is {self.price:g} nat a byte, and every step became 255: give a lower price"
            )
        steps = q.round().clamp(1, 255).int().tolist()
        hardness = [[round(kappa, 2) for kappa in table] for table in kappas[0].tolist()] if kappas else None
        return OperatingPoint.from_tables(steps, subsampling=self.subsampling, hardness=hardness)

    def _identity(self) -> str:
        digests = [(network.digest, network.task.identity) for network in self.objective.networks]
        form = self.subsampling, len(self.log_q), self.objective.loss
        return repr((self.settings, f"{self.price:.3g}", form, self.begun, len(self.objective), digests))

    def save(self, file: Path) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "identity": self._identity(),
                "step": self.step,
                "learned": [tensor.detach() for tensor in self.learned],
                "means": self.means,
                "optimizer": self.optimizer.state_dict(),
            },
            buffer,
        )
        write_atomic(file, buffer.getvalue())

    def restore(self, file: Path) -> None:
        try:
            state: dict[str, Any] = torch.load(file, map_location=self.objective.device, weights_only=True)
            identity = state["identity"]
        except Exception as error:
            raise ValueError(f"{file} is not the state of a descent: delete it to start again") from error
        if identity != self._identity():
            raise ValueError(
                f"{file} is the state of another descent: give the options of that descent, or delete the "
                "file"
            )
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        with torch.no_grad():
            for mine, kept in zip(
                [*self.learned, *self.means], [*state["learned"], *state["means"]], strict=True
            ):
                mine.copy_(kept)


def _batch(count: int, size: int, step: int, seed: int) -> NDArray[np.int64]:
    """Numbers of the pictures of a step: the next `size` of random permutations of all `count` pictures."""
    first = step * size
    rounds = range(first // count, (first + size - 1) // count + 1)
    orders = [np.random.default_rng([seed, number]).permutation(count) for number in rounds]
    return np.concatenate(orders)[first - rounds[0] * count :][:size]
