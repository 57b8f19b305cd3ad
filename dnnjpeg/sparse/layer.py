"""The plan of one layer, and the checks of its JSON form."""

from dataclasses import asdict, dataclass
from reprlib import repr as brief
from typing import Any, Self

from dnnjpeg.checks import check_integer, check_items, check_keys, is_number
from dnnjpeg.sparse.dense import DENSE, TORCH
from dnnjpeg.sparse.geometry import Geometry
from dnnjpeg.sparse.tiling import SPARSE, Tiling, check_tiling

_LONGEST, _LARGEST = 1 << 16, 1 << 28  # side of a geometry, and numbers of its input


@dataclass(frozen=True)
class LayerPlan:
    """The plan of one convolution. Other modules are given by their names in the model."""

    name: str
    geometry: Geometry
    method: str  # of `dense.DENSE` or `tiling.SPARSE`
    tiling: Tiling | None = None  # of a sparse method
    min_zeros: float = 0.0  # below this share of zeros a dense method computes it
    norm: str | None = None  # a batch norm that it does too
    relu: str | None = None  # a ReLU or ReLU6 that it does too
    onward: str | None = None  # the convolution that it hands lists to, in place of a map
    dense: str = TORCH[-1]  # the dense method for few zeros

    def to_json(self) -> dict[str, Any]:
        """The plan of the layer as a JSON object."""
        return {**asdict(self), "tiling": self.tiling and self.tiling._asdict()}

    @classmethod
    def of(cls, document: Any) -> Self:
        """Make it from a JSON object. Raises ValueError that names the field."""
        fields = tuple(cls.__dataclass_fields__)
        check_keys(document, "layer", fields[:3], fields[3:])
        name = _check_name(document["name"], "name")
        try:
            geometry, tiling = _geometry(document["geometry"]), document.get("tiling")
            if tiling is not None:
                check_keys(tiling, "tiling", Tiling._fields[:3], Tiling._fields[3:])
                tiling = Tiling(**tiling)
                check_tiling(tiling, geometry, planned=True)
            made = cls(**{**document, "geometry": geometry, "tiling": tiling})
            made._check()
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        return made

    def _check(self) -> None:
        """Raise ValueError that names the field, if a field is wrong."""
        method, tiling = self.method, self.tiling
        if method not in (*DENSE, *SPARSE):
            known = f"{', '.join(DENSE)}, {' or '.join(SPARSE)}"
            raise ValueError(f"method is {brief(method)}, expected {known}: tune again")
        if tiling is None and method in SPARSE:
            raise ValueError(f"method is {method}, which needs a tiling: tune again")
        if tiling is not None and tiling.method != method:
            raise ValueError(f"method is {method}, and its tiling is of {tiling.method}")
        if self.dense not in DENSE:
            raise ValueError(f"dense is {brief(self.dense)}, expected {', '.join(DENSE)}: tune again")
        if not is_number(self.min_zeros) or not 0 <= self.min_zeros <= 1:
            raise ValueError(f"min_zeros is {brief(self.min_zeros)}, expected a number 0..1")
        for field in ("norm", "relu", "onward"):
            if getattr(self, field) is not None:
                _check_name(getattr(self, field), field)


def _check_name(value: Any, field: str) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{field} is {brief(value)}, expected the name of a module")
    return value


def _geometry(document: Any) -> Geometry:
    """Make a Geometry from a JSON object. Raises ValueError that names the field."""
    fields = tuple(Geometry.__dataclass_fields__)
    check_keys(document, "geometry", fields[:5], fields[5:])
    values = {}
    for key, value in document.items():
        name, low = f"geometry.{key}", 0 if "padding" in key else 1
        if key in ("kernel", "stride", "padding", "end_padding"):
            if value is not None or key != "end_padding":
                pair = check_items(value, name, "two integers")
                if len(pair) != 2:
                    raise ValueError(f"{name} is {brief(value)}, expected two integers")
                value = tuple(check_integer(one, f"{name}[{i}]", low, _LONGEST) for i, one in enumerate(pair))
        else:
            value = check_integer(value, name, low, _LONGEST)
        values[key] = value
    geometry = Geometry(**values)
    if (numbers := geometry.channels * geometry.height * geometry.width) > _LARGEST:
        raise ValueError(f"geometry has an input of {numbers} numbers, expected up to {_LARGEST}")
    return geometry
