"""Outputs of networks: a tensor, or a dict of tensors, whose first axis is the picture."""

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dnnjpeg.files.cache import Arrays

# Each is a tensor (array) or a dict of them. Only the task knows which.
Output = Any  # tensors of N pictures
Outputs = Any  # arrays of N pictures, or a list with one entry a picture, where their shapes differ

_TENSOR = "logits"  # the name of a single tensor among stored arrays


def each(function: Callable[[Any], Any], output: Any) -> Any:
    """The output with the function applied to its tensor, or to each tensor of its dict."""
    if isinstance(output, dict):
        return {name: function(value) for name, value in output.items()}
    return function(output)


def tensors(output: Any) -> list[Any]:
    """The tensors or arrays of an output."""
    return list(output.values()) if isinstance(output, dict) else [output]


def single(output: Any) -> Any:
    """The tensor or array of an output that has one."""
    (value,) = tensors(output)
    return value


def shapes(output: Any) -> str:
    """The shapes of an output, for messages."""
    return str(each(lambda value: tuple(value.shape) if hasattr(value, "shape") else type(value), output))


def join(parts: Sequence[Outputs]) -> Outputs:
    """Join outputs of several pictures, one after the other. Returns a list if their shapes differ."""
    if len(kinds := {_kind(part) for part in parts}) == 1 and None not in kinds:
        if isinstance(first := parts[0], dict):
            return {name: np.concatenate([part[name] for part in parts]) for name in first}
        return np.concatenate(parts)
    return [row for part in parts for row in _rows(part)]


def take(outputs: Outputs, index: Sequence[int] | NDArray[np.int64]) -> Output:
    """The outputs of some pictures, as tensors. Their shapes must be equal."""
    if isinstance(outputs, list):
        first = outputs[index[0]]
        some: Any = (
            {name: np.stack([outputs[i][name] for i in index]) for name in first}
            if isinstance(first, dict)
            else np.stack([outputs[i] for i in index])
        )
    else:
        some = each(lambda array: array[np.asarray(index)], outputs)
    return each(torch.from_numpy, some)


def by_shape(outputs: Outputs, index: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Group pictures by the shape of their outputs. Yields the places in `index` of each group."""
    if not isinstance(outputs, list):
        yield np.arange(len(index))
        return
    groups: dict[object, list[int]] = {}
    for place, i in enumerate(index.tolist()):
        groups.setdefault(shapes(outputs[i]), []).append(place)
    yield from map(np.array, groups.values())


def length(outputs: Outputs) -> int:
    """The number of pictures."""
    return len(outputs if isinstance(outputs, list) else tensors(outputs)[0])


def row_of(outputs: Outputs, i: int) -> Any:
    """The output of one picture, without the first axis."""
    return outputs[i] if isinstance(outputs, list) else each(itemgetter(i), outputs)


def to_arrays(outputs: Outputs) -> Arrays:
    """The arrays of outputs by name, for a cache."""
    if isinstance(outputs, list):
        return {
            f"{i} {name}": array for i, row in enumerate(outputs) for name, array in to_arrays(row).items()
        }
    return dict(outputs) if isinstance(outputs, dict) else {_TENSOR: outputs}


def from_arrays(arrays: Arrays, count: int) -> Outputs:
    """The outputs of `count` pictures, from `to_arrays`."""
    if list(arrays) == [_TENSOR]:
        return arrays[_TENSOR]
    if not all(" " in name for name in arrays):
        return dict(arrays)
    rows: list[dict[str, NDArray[Any]]] = [{} for _ in range(count)]
    for place, array in arrays.items():
        number, _, name = place.partition(" ")
        rows[int(number)][name] = array
    return [row[_TENSOR] if list(row) == [_TENSOR] else row for row in rows]


def _kind(part: Outputs) -> object:
    """What two parts must share to be joined as arrays. None for a list."""
    if isinstance(part, list):
        return None
    return str(each(lambda array: array.shape[1:], part))


def _rows(part: Outputs) -> list[Any]:
    return [row_of(part, i) for i in range(length(part))]
