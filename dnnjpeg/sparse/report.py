"""Measurements of a network's convolutions, and of the whole network."""

from dataclasses import dataclass, field
from typing import Any

from dnnjpeg.sparse.dense import DENSE
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.plan import Plan
from dnnjpeg.sparse.tiling import SPARSE, Tiling

_METHODS = {
    "torch": "as PyTorch runs it",
    "channels_last": "PyTorch, with the channels of a pixel side by side in memory",
    "prepacked": "oneDNN, with the weights in its own order",
    "im2col": "one matrix product, of a matrix with a row for each output pixel",
    "mec": "as im2col, but with a smaller matrix (MEC)",
    "direct": "ours, one tile of the output after the other",
    "winograd": "ours, with fewer multiplications (Winograd), for 3x3 filters and stride 1",
    "winograd4": "the same with larger tiles: fewer multiplications, and more weights",
    "depthwise": "ours, for layers with one channel a filter",
}
_NETWORKS = {
    "original": "the network unchanged",
    "dense": "with the fastest dense method of each layer",
    "plan": "with the fastest method of each layer",
    "cautious": "with sparse methods only where they gain much",
}


@dataclass
class LayerReport:
    """Measurements of one convolution. Times are in milliseconds."""

    name: str
    geometry: Geometry
    zeros: float  # share of the input
    times: dict[str, float]  # by method, compression included
    choice: str
    difference: float  # largest of the choice to torch's float64, over the largest output
    compression_ratios: dict[str, float]  # elements of the im2col matrix over those that a method makes
    tilings: dict[Tiling, float] = field(default_factory=dict)  # of the ring kernel, and their times

    def to_json(self) -> dict[str, Any]:
        """The measurements as a JSON object."""
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
    """The result of `optimize_`.

    plan: the plan in use.
    layers: measurements of each convolution.
    network: milliseconds of the whole network: unchanged ("original"); with the fastest dense method of each
        layer ("dense"); with the fastest method of each layer ("plan"); with sparse methods only where they
        gain much ("cautious").
    """

    plan: Plan
    layers: list[LayerReport]
    network: dict[str, float]
    choice: str  # a key of `network`
    difference: float  # of the network's output, over its largest value

    @property
    def speedup(self) -> float:
        """Speed of the plan in use, relative to the unchanged network."""
        return self.network["original"] / self.network[self.choice]

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
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
        lines = [
            "milliseconds of each layer by method; zeros: share of its input; smaller: how many times fewer "
            "numbers the",
            "method makes of the input than im2col does; error: largest difference over the largest output",
            f"{head}  {'fastest':14} {'smaller':>7} error",
        ]
        for layer in self.layers:
            cells = (
                f"{_number(layer.times.get(key), 3):>{max(9, len(name))}}" for key, name in names.items()
            )
            ratio = layer.compression_ratios.get(layer.choice)
            lines.append(
                f"{layer.name[-28:]:28} {layer.geometry!s:34} {layer.zeros:5.0%} {' '.join(cells)}  "
                f"{names[layer.choice]:14} {'-' if ratio is None else f'{ratio:.1f}x':>7} "
                f"{layer.difference:.0e}"
            )
        lines += [f"  {name}: {_METHODS[name]}" for name in DENSE if name in _METHODS]
        lines.append("  ring: ours, skips zeros; the non-zeros are listed by number or by patterns of bits")
        lines.append("network, milliseconds a run:")
        lines += [f"  {_NETWORKS[name]}: {value:.3f}" for name, value in self.network.items()]
        lines.append(
            f"in use: {_NETWORKS[self.choice]}{', layers joined' if self.plan.fused else ''}; "
            f"{self.speedup:.2f} times as fast as the unchanged network; largest difference of its output "
            f"{self.difference:.0e}"
        )
        return "\n".join(lines)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
