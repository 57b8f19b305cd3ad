"""Convolutions that follow each other, as one function: no Python and no new tensors between them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dnnjpeg.sparse.fast import SHAPES, fits, marked
from dnnjpeg.sparse.module import SparseConv2d
from dnnjpeg.sparse.program import Kernel, Link, Program
from dnnjpeg.sparse.uncompiled import uncompiled
from dnnjpeg.sparse.watch import Watch, tensors_at


class Chain:
    """Convolutions that follow each other, as one function.

    links: the convolutions, in their order. A sparse one that meets too few zeros in several calls, one
        after the other, is replaced by a dense kernel.
    outputs: numbers of the tensors that others read.
    """

    def __init__(self, links: Sequence[Link], outputs: Sequence[int]) -> None:
        self._links, self._outputs = links, outputs
        self._programs: dict[Any, Program | None] = {}
        self._places = [place for link in links for place in link.module.places()]
        self._watch = Watch()
        self._dense: set[int] = set()  # sparse links that a dense kernel computes from now on

    @uncompiled
    def __call__(self, *inputs: Tensor) -> Any:
        """The output, or a tuple of outputs, channels last."""
        if torch.is_grad_enabled():  # each convolution decides whether it can do without
            return self._given(self._one_by_one(inputs))
        # as `FastConv2d.check`, for all at once
        self._watch.clear_if_changed(tensors_at(self._places), self._programs)
        if len(self._programs) >= SHAPES:
            self._programs.clear()
        key = (torch.get_num_threads(), *((x.shape, x.dtype, x.device) for x in inputs))
        try:
            program = self._programs[key]
        except KeyError:  # there was none, or another thread has cleared them
            for link in self._links:
                link.module.check(inputs[0])
            program = self._programs[key] = self._program(inputs)
        if program is None:
            return self._given(self._one_by_one(inputs))
        results = program([x.contiguous(memory_format=torch.channels_last) for x in inputs])
        if program.crowded:
            self._dense |= program.crowded
            self._programs.clear()
        for number, y in zip(self._outputs, results, strict=True):
            marked(y, self._links[number - len(inputs)].activation)
        return self._given(results)

    def _given(self, results: list[Tensor]) -> Any:
        return results[0] if len(results) == 1 else tuple(results)

    def _program(self, inputs: Sequence[Tensor]) -> Program | None:
        """The program for inputs of these shapes, or None if torch must compute a part of it."""
        if not all(map(fits, inputs)):
            return None
        shapes = [tuple(x.shape) for x in inputs]
        kernels: list[Kernel] = []
        for i, link in enumerate(self._links):
            module, shape = link.module, shapes[link.source]
            if isinstance(module, SparseConv2d) and i in self._dense:
                kernel: Kernel | None = module.dense_kernel(shape)
            else:
                kernel = module.kernel(shape)
            if kernel is None:
                return None
            shapes.append((shapes[0][0], *kernel.output))
            if link.residual is not None and shapes[link.residual] != shapes[-1]:
                return None
            kernels.append(kernel)
        program = Program(self._links, self._outputs, shapes[: len(inputs)], kernels)
        return program if program.possible else None

    def _one_by_one(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        tensors = list(inputs)
        for link in self._links:
            residual = None if link.residual is None else tensors[link.residual]
            tensors.append(link.module.compute(tensors[link.source], residual, link.activation, None, False))
        return [tensors[number] for number in self._outputs]
