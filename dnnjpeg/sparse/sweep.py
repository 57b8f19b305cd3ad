"""The hot loop of the ring kernel, written as LLVM IR: one sweep over a row of lists of non-zeros.

At input column x, the output columns that read it are ceil(Kw/Sw) neighbours. Their partial sums live in
vector registers, NB vectors of 16 filters each, and move on as x does: a ring. With `rows` > 1 the ring has
as many output rows too. A non-zero is broadcast once and multiplied with all the weights that it meets, which
follow each other in memory.
"""

from itertools import product
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic

from dnnjpeg.machine.vector import prefetch
from dnnjpeg.sparse.lists import LANES
from dnnjpeg.sparse.products import VECTOR, Products, Ring

_I64 = ir.IntType(64)
_ARGUMENTS = 18


class _Sweep(Products):
    """The sweep for the kernel rows first..first+count-1 of the ring."""

    def __init__(self, module: ir.Module, ring: Ring, first: int, count: int, name: str) -> None:
        super().__init__(module, name, _ARGUMENTS)
        self.ring, self.first, self.count = ring, first, count
        self._emit()

    def _emit(self) -> None:
        b, ring = self.builder, self.ring
        (
            cells, values, indices, weights, out, row_bytes, width, outputs, pad, ahead, lines,
            fresh, bias, done, result, result_row, result_pixel, relu,
        ) = self.function.args  # fmt: skip
        self.weights, self.values, self.indices, self.cells = weights, values, indices, cells
        self.acc = {
            key: b.alloca(VECTOR.ir)
            for key in product(range(ring.columns), range(self.count), range(ring.blocks))
        }
        for slot in self.acc.values():
            b.store(ir.Constant(VECTOR.ir, None), slot)
        self.at = self._variable(0)  # the next non-zero of the row
        self.value_at = self._variable(values)
        self.ahead = self._variable(ahead)
        self.pad, self.lines, self.relu = pad, lines, relu
        pixel = _I64(ring.blocks * LANES * 4)
        # by row: the place of the first column's sums, and bytes to the next
        self.enters: list[tuple[ir.Value, ir.Value]] = []
        self.leaves: list[tuple[ir.Value, ir.Value]] = []
        self.clamped: list[ir.Value] = []
        for k in range(self.first, self.first + self.count):
            begins, ends = (b.trunc(b.lshr(mask, _I64(k)), ir.IntType(1)) for mask in (fresh, done))
            sums = b.sub(out, b.mul(row_bytes, _I64(k)))
            finished = b.sub(result, b.mul(result_row, _I64(k)))
            self.enters.append((b.select(begins, bias, sums), b.select(begins, _I64(0), pixel)))
            self.leaves.append((b.select(ends, finished, sums), b.select(ends, result_pixel, pixel)))
            self.clamped.append(b.and_(ends, b.icmp_unsigned("!=", relu, _I64(0))))
        columns = ring.columns
        self.width, self.outputs = width, outputs
        column, end = self._variable(0), b.add(outputs, _I64(columns - 1))
        if whole := self.count == ring.rows:  # else at the edge of the picture: rare
            wide = b.icmp_signed(">=", outputs, _I64(columns - 1))  # else the ends of the row overlap
            end = b.select(wide, outputs, end)
            with b.if_then(wide):
                self._head()
                b.store(_I64(columns - 1), column)
                self._inner(column)
        with self._loop(column, end):
            o = b.load(column)
            with b.if_then(b.icmp_unsigned("<", o, outputs), likely=True):
                self._enter(o)
            self._prefetch()
            self._column(o, range(columns))
            leaving = b.sub(o, _I64(columns - 1))
            with b.if_then(b.icmp_unsigned("<", leaving, outputs), likely=True):
                self._leave(leaving)
            for t in reversed(range(1, columns)):
                for r, n in product(range(self.count), range(ring.blocks)):
                    b.store(b.load(self.acc[t - 1, r, n]), self.acc[t, r, n])
        if whole:
            with b.if_then(wide):
                self._tail()
        b.ret_void()

    def _head(self) -> None:
        """The first columns, each of which adds one to the ring."""
        acc, last = self.acc, self.ring.columns - 1
        for o in range(last):
            self.acc = {(t - last + o, r, n): slot for (t, r, n), slot in acc.items()}
            self._enter(_I64(o))
            self._prefetch()
            self._column(_I64(o), range(o + 1))
        self.acc = acc

    def _tail(self) -> None:
        """The columns after the last output column, where the ring empties."""
        acc, last = self.acc, self.ring.columns - 1
        for k in range(last):
            self.acc = {(t + k, r, n): slot for (t, r, n), slot in acc.items()}
            o = self.builder.add(self.outputs, _I64(k))
            self._column(o, range(k + 1, last + 1))
            self._leave(self.builder.sub(o, _I64(last)))
        self.acc = acc

    def _inner(self, column: ir.Value) -> None:
        """Columns far from the ends of the row, as many at once as the ring has. Only names rotate."""
        b, ring = self.builder, self.ring
        columns, acc, stride = ring.columns, self.acc, _I64(ring.stride)
        # up to `outer` all inputs are inside the row, if they are so from the first column on
        outer = self._smaller(self.outputs, b.sdiv(b.add(self.width, self.pad), stride))
        is_inside = b.icmp_signed("<=", self.pad, b.mul(_I64(columns - 1), stride))
        outer = b.select(is_inside, outer, _I64(0))
        head, body, after = self._block("head"), self._block("body"), self._block("after")
        b.branch(head)
        b.position_at_end(head)
        o = b.load(column)
        b.cbranch(b.icmp_signed("<=", b.add(o, _I64(columns)), outer), body, after)
        b.position_at_end(body)
        for k in range(columns):
            self.acc = {(t, r, n): acc[(t - k) % columns, r, n] for t, r, n in acc}
            place = b.add(o, _I64(k))
            self._enter(place)
            self._prefetch()
            self._column(place, range(columns), inside=True)
            self._leave(b.sub(place, _I64(columns - 1)))
        self.acc = acc
        b.store(b.add(o, _I64(columns)), column)
        self._back(b.branch(head))
        b.position_at_end(after)

    def _column(self, o: ir.Value, slots: range, inside: bool = False) -> None:
        """Add all non-zeros of the inputs at output column o to the output columns o - t, for t in `slots`.

        inside: these inputs are inside the row.
        """
        b, ring = self.builder, self.ring
        for phase in range(ring.stride):
            x = b.sub(b.add(b.mul(o, _I64(ring.stride)), _I64(phase)), self.pad)
            reading = range(slots.start, min(slots.stop, len(range(phase, ring.width, ring.stride))))
            if inside:
                self._list(x, phase, reading)
            else:
                with b.if_then(b.icmp_unsigned("<", x, self.width), likely=True):
                    self._list(x, phase, reading)

    def _enter(self, o: ir.Value) -> None:
        """Load the sums of output column o into the ring."""
        b = self.builder
        for r, (start, step) in enumerate(self.enters):
            place = b.add(start, b.mul(o, step))
            for n in range(self.ring.blocks):
                sums = self._load(b.add(place, _I64(n * LANES * 4)), VECTOR.ir, 64)
                b.store(sums, self.acc[0, r, n])

    def _leave(self, o: ir.Value) -> None:
        b, blocks = self.builder, range(self.ring.blocks)
        for r, (start, step) in enumerate(self.leaves):
            slots = [self.acc[self.ring.columns - 1, r, n] for n in blocks]
            with b.if_then(self.clamped[r]):
                for slot in slots:
                    self._clamp(slot, "<", 0.0)
                with b.if_then(b.icmp_unsigned("==", self.relu, _I64(6))):
                    for slot in slots:
                        self._clamp(slot, ">", 6.0)
            place = b.add(start, b.mul(o, step))
            for n, slot in enumerate(slots):
                pointer = b.inttoptr(b.add(place, _I64(n * LANES * 4)), VECTOR.ir.as_pointer())
                b.store(b.load(slot), pointer, align=64)

    def _clamp(self, slot: ir.Value, beyond: str, limit: float) -> None:
        """Clip a sum at a limit. NaN stays."""
        b, bound = self.builder, ir.Constant(VECTOR.ir, [limit] * LANES)
        v = b.load(slot)
        b.store(b.select(b.fcmp_ordered(beyond, v, bound), bound, v), slot)

    def _smaller(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.select(self.builder.icmp_signed("<", a, b), a, b)

    def _prefetch(self) -> None:
        b = self.builder
        with self._loop(self._variable(0), self.lines):
            address = b.load(self.ahead)
            prefetch(b, address)
            b.store(b.add(address, _I64(64)), self.ahead)


@intrinsic(prefer_literal=True)
def sweep(
    typingctx: Any,
    width: Any,
    stride: Any,
    rows: Any,
    blocks: Any,
    pattern: Any,
    first: Any,
    count: Any,
    args: Any,
) -> Any:
    """One sweep for the kernel rows first..first+count-1 of the ring. `args` is a tuple of integers:

    cells: address of the row's ends of lists, int32[width + 1], or of its patterns, bits [width][channels]
    values: address of the row's non-zeros, float32
    indices: address of their channels in the block, uint16; not used with patterns
    weights: address of the slice, float32[channels][rows][Kw][NB][16], 64-byte aligned
    out: address of the sums of kernel row 0, float32[outputs][NB][16], 64-byte aligned
    row_bytes: the sums of kernel row r are r·row_bytes before `out`
    fresh: if bit r is set, the sums of kernel row r start with the bias
    bias: address of the bias, float32[NB][16]
    done: if bit r is set, the sums of kernel row r are complete, and go to the result
    result, result_row, result_pixel: kernel row r writes r·result_row before the address `result`, a pixel
        every result_pixel bytes
    relu: activation of complete sums: 0 none, 1 ReLU, 6 ReLU6
    width, outputs, pad: columns of the input, of the output, and of the padding at the left
    ahead, lines: address of data to prefetch, and the number of cache lines to prefetch at each column
    """
    ring = Ring(*(literal.literal_value for literal in (width, stride, rows, blocks, pattern)))

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, values: Any) -> ir.Value:
        numbers = [builder.extract_value(values[-1], i) for i in range(_ARGUMENTS)]
        variants = [(f, c) for f in range(ring.rows) for c in range(1, ring.rows - f + 1)]
        end = builder.append_basic_block("swept")
        code = builder.add(builder.mul(values[5], _I64(ring.rows + 1)), values[6])
        switch = builder.switch(code, end)
        for f, c in variants:
            name = f"sweep.{ring.width}.{ring.stride}.{ring.rows}.{ring.blocks}.{ring.pattern}.{f}.{c}"
            function = builder.module.globals.get(name)
            if function is None:
                function = _Sweep(builder.module, ring, f, c, name).function
            block = builder.append_basic_block("variant")
            switch.add_case(_I64(f * (ring.rows + 1) + c), block)
            builder.position_at_end(block)
            builder.call(function, numbers)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.none(width, stride, rows, blocks, pattern, types.intp, types.intp, args), codegen
