"""JPEG-DL: a JPEG layer with trainable steps, to be trained together with the network behind it.

The layer maps pixels to pixels, and also writes real files (`JPEGLayer.encode`). In form "file" the layer
gives the same pixels as a decoder of these files. `dnnjpeg.learn.training` trains the logarithms of the
steps, with an optimizer of their own, without weight decay.
"""

import json
import math
import warnings
from collections.abc import Iterator
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from dnnjpeg.checks import check_integer, is_number
from dnnjpeg.encoder import encode
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS
from dnnjpeg.learn.frozen import FrozenJPEG
from dnnjpeg.learn.layer_points import first_tables, to_point, without_limits
from dnnjpeg.networks.readings import decode
from dnnjpeg.soft.jpeg import MaxIndices, component_tables, roundtrip, to_coefficients
from dnnjpeg.soft.rate import scan_rate
from dnnjpeg.table.point import OperatingPoint
from dnnjpeg.table.table import Table

Form = Literal["soft", "sampled", "hard", "file"]

_FORMS = ("soft", "sampled", "hard", "file")
_HARDNESS = 1.0, 1e4  # below, the soft quantizer is the identity (to 3e-4 steps); above, it is hard rounding
_REACH = 2  # indices on either side of the nearest, in the authors' code
# Arguments of a layer that are no tensors.
_ARGUMENTS = "levels", "least", "integer_steps", "subsampling", "is_alpha", "form"


class JPEGLayer(nn.Module):
    """JPEG with trainable steps: a module that maps pixels to pixels.

    Input and output are float [N, 3, height, width], RGB, 0..255, of any size. If the first batch looks
    normalised, or scaled to 0..1, the layer warns.

    steps: the first steps: 1 to 3 tables (for Y, Cb, Cr) of 64 numbers > 0 in natural order. The last table
        serves all further components. None: two tables of ones.
    kappa: hardness κ, as in `quantize`; 5 by default. κ is clipped to 1..10,000.
    alpha: hardness as in the paper, exp(-alpha (z - iq)²), in place of kappa. It means κ = alpha q².
    learn_hardness: train the logarithm of κ or alpha, for each frequency.
    levels: number of indices, odd. Coefficients are clipped to ±(levels - 1)/2 steps. None: no limit. The
        authors' code has 255 levels; strong coefficients are then clipped if steps are small.
    least: lower limit of the steps, 0..255.
    integer_steps: round steps to 1..255 in every form, as files hold them, with straight-through gradients.
        If a step below 1 becomes 1, the largest index becomes smaller, so that the clipping stays the same.
    published: do as the authors' code. The steps themselves are trained, with exact derivatives in place of
        the steady ones. κ is not clipped. A coefficient has five possible indices, whatever κ. Pixels are
        clipped to 0..255 only in form "file".
    rounds: number of JPEG codecs, one after the other, each with its own steps, 1..100.
    subsampling: a key of `dnnjpeg.jpeg.subsampling.SUBSAMPLINGS`.

    The attribute `form` says how coefficients are quantized:
        "soft": differentiable; the default, for training.
        "sampled": at random, with the probabilities of the soft quantizer.
        "hard": rounded to the nearest. Steps are real numbers.
        "file": as "hard", and steps, samples and pixels are integers, as in a file.
    All forms clip pixels to 0..255, and have the gradients of "soft". The gradients of the steps are the
    steady ones (see `quantize`).

    Parameters: `log_q` [rounds, tables, 64] (or `q`, if published) and `log_hardness` (a buffer, unless it is
    learned). The other arguments are in the state_dict, too. The layer computes in float32, also under
    autocast. Raises ValueError that names the argument.
    """

    def __init__(
        self,
        steps: ArrayLike | None = None,
        *,
        kappa: float | None = None,
        alpha: float | None = None,
        learn_hardness: bool = False,
        levels: int | None = None,
        least: float = 1.0,
        integer_steps: bool = False,
        published: bool = False,
        rounds: int = 1,
        subsampling: str = "4:4:4",
    ) -> None:
        super().__init__()
        if kappa is not None and alpha is not None:
            raise ValueError("kappa and alpha are both given: give one of them")
        hardness = alpha if alpha is not None else 5.0 if kappa is None else kappa
        for name, value in (("kappa" if alpha is None else "alpha", hardness), ("least", least)):
            if not is_number(value) or not 0 < value < math.inf:
                raise ValueError(f"{name} is {value!r}, expected a number above 0")
        if least > 255:
            raise ValueError(f"least is {least}, expected at most 255, the largest step")
        if integer_steps and levels is None and least < 1:
            raise ValueError(
                f"least is {least}, expected at least 1, as steps are integers: raise it, or give levels"
            )
        if levels is not None and check_integer(levels, "levels", 3, 4095) % 2 == 0:
            raise ValueError(f"levels is {levels}, expected an odd number: 0, and as many above as below")
        if subsampling not in SUBSAMPLINGS:
            raise ValueError(f"subsampling is {subsampling!r}, expected one of {', '.join(SUBSAMPLINGS)}")
        self.levels, self.least, self.subsampling = levels, float(least), subsampling
        self.is_alpha, self.integer_steps = alpha is not None, integer_steps
        self.published = published
        self.form: Form = "soft"
        self._is_checked = False
        q = torch.tensor(first_tables(steps), dtype=torch.float32).clamp(least, 255)
        q = q.repeat(check_integer(rounds, "rounds", 1, 100), 1, 1)
        if published:
            self.q = nn.Parameter(q)
        else:
            self.log_q = nn.Parameter(q.log())
        log_hardness = torch.full_like(q, math.log(hardness))
        self.log_hardness: Tensor
        if learn_hardness:
            self.log_hardness = nn.Parameter(log_hardness)
        else:
            self.register_buffer("log_hardness", log_hardness)

    @classmethod
    def from_point(cls, point: OperatingPoint, **options: Any) -> Self:
        """Make a layer with the tables, the subsampling and the hardness of a point.

        The point's bin_width is not used. If the point has a max_index, the layer gets the levels that belong
        to it: a step of 1 with a lower limit than the others' becomes a step below 1.

        options: arguments of the class. They win over the point's.

        Raises ValueError if no levels belong to the point's max_index.
        """
        steps = np.array(point.tables, float)
        if options.get("levels") is None and any(limit is not None for limit in point.max_index):
            steps, levels = without_limits(point)
            options = {"levels": levels, "least": min(1.0, steps.min()), **options}
        layer = cls(steps, **{"subsampling": point.subsampling, **options})
        is_given = options.get("kappa") is not None or options.get("alpha") is not None
        if any(kappa is not None for kappa in point.hardness) and not is_given:
            known = [np.broadcast_to(np.array(kappa, float), 64) for kappa in point.hardness]
            kappas = torch.tensor(np.nan_to_num(known, nan=_HARDNESS[1]), dtype=torch.float32)
            with torch.no_grad():
                layer.log_hardness.copy_(kappas.log())
        return layer

    def forward(self, pixels: Tensor) -> Tensor:
        if self.form not in _FORMS:
            raise ValueError(f"form is {self.form!r}, expected one of {', '.join(_FORMS)}")
        if not self._is_checked and not torch.compiler.is_compiling():
            self._is_checked = True
            _warn_of_range(pixels)
        is_file = self.form == "file"
        mode = "hard" if self.form == "file" else self.form
        how: dict[str, Any] = {"K": _REACH, "held": False} if self.published else {"steady": True}
        for tables, max_index in self._rounds(is_file or self.integer_steps):
            pixels = roundtrip(
                pixels, tables, mode, self.subsampling, integers=is_file, max_index=max_index, **how
            )
        return pixels

    def bits(self, pixels: Tensor) -> Tensor:
        """Estimated bits of each picture's file, float [N], differentiable in the steps. See `scan_rate`.

        pixels: float [N, 3, height, width], 0..255.

        Raises ValueError if the layer has several rounds.
        """
        if len(self.log_steps()) > 1:
            raise ValueError(f"the layer has {len(self.log_steps())} rounds, expected one")
        height, width = pixels.shape[-2:]
        log_q, log_kappa = self.log_steps()[0], self.log_kappa()[0]
        planes = to_coefficients(pixels, self.subsampling, integers=True)
        if self.levels is not None:
            tables = component_tables(log_q, log_kappa, integers=True)
            max_index = self._max_index(log_q, integers=True)
            bounds = [q * limit for (q, _), limit in zip(tables, max_index, strict=True) if limit is not None]
            planes = [plane.clamp(-most, most) for plane, most in zip(planes, bounds, strict=True)]
        return scan_rate(planes, log_q, log_kappa, height, width, self.subsampling)

    def extra_repr(self) -> str:
        rounds, tables, _ = self.log_hardness.shape
        arguments = (f"{name}={getattr(self, name)!r}" for name in (*_ARGUMENTS, "published"))
        return f"{rounds} round(s) of {tables} table(s), {', '.join(arguments)}"

    def log_steps(self) -> Tensor:
        """Logarithm of the steps, [rounds, tables, 64]."""
        return self.q.log() if self.published else self.log_q

    def log_kappa(self) -> Tensor:
        """Logarithm of the hardness κ, [rounds, tables, 64]."""
        log_kappa, log_q = self.log_hardness, self.log_steps()
        if self.is_alpha:
            log_kappa = log_kappa + 2 * (log_q.clamp(min=0) if self.integer_steps else log_q)
        return log_kappa if self.published else log_kappa.clamp(*map(math.log, _HARDNESS))

    def _rounds(self, integers: bool) -> Iterator[tuple[list[tuple[Tensor, Tensor]], MaxIndices]]:
        """The steps and κ of Y, Cb and Cr, and their largest indices, for each round."""
        for log_q, log_kappa in zip(self.log_steps(), self.log_kappa(), strict=True):
            yield component_tables(log_q, log_kappa, integers=integers), self._max_index(log_q, integers)

    def _max_index(self, log_q: Tensor, integers: bool) -> MaxIndices:
        """The largest indices of Y, Cb and Cr for the steps of a round. log_q: [tables, 64]."""
        if self.levels is None:
            return (None,) * 3
        limit = (self.levels - 1) // 2
        most = min(limit, 1023) if integers else limit  # more is beyond what files hold
        if not integers or self.least >= 1:
            return (most,) * 3
        held = (limit * log_q.detach().exp()).round().clamp(1, most)
        return [held[min(c, len(held) - 1)] for c in range(3)]

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clip steps to least..255 and κ to 1..10,000. Call it after each step of the optimizer."""
        if self.published:
            self.q.clamp_(self.least, 255)
        else:
            self.log_q.clamp_(math.log(self.least), math.log(255))
        if not self.is_alpha:  # κ of an alpha comes back with its step
            self.log_hardness.clamp_(*map(math.log, _HARDNESS))

    def points(self) -> tuple[OperatingPoint, ...]:
        """The operating point of each round: steps as integers 1..255, max_index, rounding to the nearest."""
        return tuple(
            to_point(log_q, self._max_index(log_q, integers=True), self.subsampling)
            for log_q in self.log_steps().detach()
        )

    def to_table(self, name: str, *, which: int = 0, **fields: Any) -> Table:
        """The point of the round number `which`, as a Table.

        fields: description and provenance of the Table.
        """
        return Table(name, (self.points()[which],), **fields)

    def encode(self, picture: NDArray[np.uint8]) -> bytes:
        """Encode a picture as a JPEG file. Its decoded pixels are those of form "file".

        picture: uint8 height x width x 3, RGB. Raises ValueError for another array.
        """
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(f"picture is {picture.dtype} {picture.shape}, expected uint8 H x W x 3")
        data = b""
        for number, point in enumerate(self.points()):
            data = encode(decode(data) if number else picture, point)
        return data

    def get_extra_state(self) -> Tensor:
        """The arguments that are no tensors, as JSON in a uint8 tensor, which safetensors can hold."""
        arguments = json.dumps({name: getattr(self, name) for name in _ARGUMENTS})
        return torch.tensor(list(arguments.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        arguments = json.loads(bytes(state.tolist()))
        for name in _ARGUMENTS:
            setattr(self, name, arguments[name])

    def frozen(self) -> "FrozenJPEG":
        """The layer in form "hard" as plain operations, for inference, torch.export and ONNX.

        Raises ValueError for another subsampling than 4:4:4.
        """
        if self.subsampling != "4:4:4":
            raise ValueError(f"the layer's subsampling is {self.subsampling}, expected 4:4:4")
        rounds, bounds = [], []
        for tables, max_index in self._rounds(self.integer_steps):
            largest = [math.inf if limit is None else limit for limit in max_index]
            held = [torch.ones_like(q) * limit for (q, _), limit in zip(tables, largest, strict=True)]
            rounds.append(torch.cat([q for q, _ in tables]).flatten())
            bounds.append(torch.cat(held).flatten())
        return FrozenJPEG(torch.stack(rounds), torch.stack(bounds), is_clipped=not self.published).eval()


def _warn_of_range(pixels: Tensor) -> None:
    """Warn if pixels are probably not 0..255."""
    if not pixels.numel():
        return
    low, high = (float(x) for x in pixels.detach().aminmax())
    is_whole = bool((pixels.detach() == pixels.detach().round()).all())  # a black picture is 0..255 as well
    if is_whole or not -20 < low <= high < 20 or (low >= 0 and high > 1):
        return
    kind, remedy = (
        ("scaled", "multiply them by 255 before the layer")
        if low >= 0
        else ("normalised", "put the layer before the normalisation")
    )
    warnings.warn(
        f"JPEGLayer got numbers from {low:.2f} to {high:.2f}, which look {kind}, and expects pixels 0..255: "
        f"{remedy}.",
        stacklevel=3,
    )
