"""What was measured on the convolutions of a network, and on the whole of it."""

from dataclasses import dataclass, field
from typing import Any

from dnnjpeg.sparse.dense import DENSE
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.plan import Plan
from dnnjpeg.sparse.tiling import SPARSE, Tiling


@dataclass
class LayerReport:
    """A convolution, and what was measured on it. Times in milliseconds."""

    name: str
    geometry: Geometry
    zeros: float  # share of the input
    times: dict[str, float]  # by method, compression included
    choice: str
    difference: float  # largest of the choice to torch's float64, over the largest output
    compression_ratios: dict[str, float]  # elements of the im2col matrix over those that a method makes
    tilings: dict[Tiling, float] = field(default_factory=dict)  # of the ring kernel, and their times

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.name,
            "geometry": str(self.geometry),
            "zeros": round(self.zeros, 4),
            "milliseconds": {name: round(value, 4) for name, value in self.times.items()},
            "choice": self.choice,
            "difference": self.difference,
            "compression_ratios": {name: round(value, 2) for name, value in self.compression_ratios.items()},
        }


@dataclass
class Report:
    """What `optimize_` found.

    plan: what is in use.
    network: milliseconds of the whole network as it was (original), with the best dense method of each layer
        (dense), with the best of all (plan), and with what of it gains much (cautious).
    """

    plan: Plan
    layers: list[LayerReport]
    network: dict[str, float]
    choice: str  # original, dense, plan or cautious
    difference: float  # of the network's output, over its largest value

    @property
    def speedup(self) -> float:
        """Of what is in use, over the network as it was."""
        return self.network["original"] / self.network[self.choice]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "conditions": self.plan.conditions,
            "network": {name: round(value, 4) for name, value in self.network.items()},
            "choice": self.choice,
            "fused": self.plan.fused,
            "difference": self.difference,
            "layers": [layer.to_json() for layer in self.layers],
        }

    def __str__(self) -> str:
        names = {name: SPARSE.get(name, name) for name in (*DENSE, *SPARSE)}
        head = f"{'layer':28} {'geometry':34} {'zeros':>5} " + " ".join(
            f"{name:>9}" for name in names.values()
        )
        lines = [f"{head}  {'choice':14} {'CR':>6} difference"]
        for layer in self.layers:
            cells = (
                f"{_number(layer.times.get(key), 3):>{max(9, len(name))}}" for key, name in names.items()
            )
            lines.append(
                f"{layer.name[-28:]:28} {layer.geometry!s:34} {layer.zeros:5.0%} {' '.join(cells)}  "
                f"{names[layer.choice]:14} {_number(layer.compression_ratios.get(layer.choice), 1):>6} "
                f"{layer.difference:.0e}"
            )
        whole = ", ".join(f"{name} {value:.3f} ms" for name, value in self.network.items())
        lines.append(
            f"network: {whole}; in use: {self.choice}{', run as one' if self.plan.fused else ''}, "
            f"{self.speedup:.2f}x, largest difference "
            f"{self.difference:.0e}"
        )
        return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
