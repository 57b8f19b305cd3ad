"""LLVM IR that multiplies the non-zeros of a pixel with all the weights that they meet."""

from dataclasses import dataclass
from itertools import product

from llvmlite import ir

from dnnjpeg.machine.jit import host_has
from dnnjpeg.machine.vector import call, fill, named, vector
from dnnjpeg.sparse.emitter import Emitter
from dnnjpeg.sparse.lists import LANES

VECTOR = vector(f"f32x{LANES}")
_I64, _I32, _I16 = (ir.IntType(bits) for bits in (64, 32, 16))
_FLOAT = ir.FloatType()
# AMD's processors load one 512-bit vector a cycle, together with a general register, but not two vectors.
# Intel's processors broadcast from a general register only in one of the two units that multiply.
_BY_REGISTER = host_has("sse4a") and host_has("avx512f")


@dataclass(frozen=True)
class Ring:
    """The parameters for which a sweep is compiled."""

    width: int  # Kw, columns of the kernel
    stride: int  # Sw
    rows: int  # kernel rows, and so output rows, in the ring: 1 or Kh
    blocks: int  # NB, vectors of filters
    pattern: int  # channels of a list with a pattern of bits, 16 to 128; 0 for a list with numbers

    @property
    def columns(self) -> int:
        """Output columns in the ring."""
        return -(-self.width // self.stride)

    @property
    def channel_bytes(self) -> int:
        """Bytes of the weights that a non-zero of one channel may meet."""
        return self.rows * self.width * self.blocks * LANES * 4


class Products(Emitter):
    """Emits code that reads the list of a pixel, and adds the products to the sums `acc` of the ring."""

    ring: Ring
    first: int  # the first kernel row
    count: int  # number of kernel rows
    acc: dict[tuple[int, int, int], ir.Value]  # a vector by column of the ring, kernel row, block of filters
    weights: ir.Value  # address of the weights
    values: ir.Value  # addresses of the row's values, indices and cells
    indices: ir.Value
    cells: ir.Value
    at: ir.Value  # variables: number and address of the row's next non-zero
    value_at: ir.Value

    def _list(self, x: ir.Value, phase: int, slots: range) -> None:
        if self.ring.pattern:
            self._patterns(x, phase, slots)
        else:
            self._indices(x, phase, slots)

    def _indices(self, x: ir.Value, phase: int, slots: range) -> None:
        b = self.builder
        end = b.zext(self._load(b.add(self.cells, b.mul(b.add(x, _I64(1)), _I64(4))), _I32, 4), _I64)
        with self._loop(self.at, end):
            at = b.load(self.at)
            index = self._load(b.add(self.indices, b.mul(at, _I64(2))), _I16, 2)
            value = self._load(b.add(self.values, b.mul(at, _I64(4))), _FLOAT, 4)
            self._multiply(b.zext(index, _I64), value, phase, slots)

    def _patterns(self, x: ir.Value, phase: int, slots: range) -> None:
        b, pattern = self.builder, self.ring.pattern
        word = ir.IntType(min(pattern, 64))
        for first in range(0, pattern, 64):
            address = b.add(self.cells, b.add(b.mul(x, _I64(pattern // 8)), _I64(first // 8)))
            mask = self._variable(b.zext(self._load(address, word, 1), _I64))
            head, body, end = self._block("head"), self._block("body"), self._block("end")
            b.branch(head)
            b.position_at_end(head)
            b.cbranch(b.icmp_unsigned("!=", b.load(mask), _I64(0)), body, end)
            b.position_at_end(body)
            bits = b.load(mask)
            channel = b.add(b.cttz(bits, ir.IntType(1)(1)), _I64(first))
            b.store(b.and_(bits, b.sub(bits, _I64(1))), mask)
            at = b.load(self.value_at)
            b.store(b.add(at, _I64(4)), self.value_at)
            self._multiply(channel, self._load(at, _FLOAT, 4), phase, slots)
            self._back(b.branch(head))
            b.position_at_end(end)

    def _multiply(self, channel: ir.Value, value: ir.Value, phase: int, slots: range) -> None:
        b, ring = self.builder, self.ring
        base = b.add(self.weights, b.mul(channel, _I64(ring.channel_bytes)))
        # opaque, or the addition is part of every address, which Intel's processors do anew each time
        base = self._opaque(base)
        if _BY_REGISTER:
            value = b.bitcast(self._opaque(b.bitcast(value, _I32)), _FLOAT)
        wide = fill(b, value, VECTOR)
        for t, r, n in product(slots, range(self.count), range(ring.blocks)):
            tap = (self.first + r) * ring.width + phase + t * ring.stride
            address = b.add(base, _I64((tap * ring.blocks + n) * LANES * 4))
            weight = self._load(address, VECTOR.ir, 64)
            slot = self.acc[t, r, n]
            product_ = call(b, named("fma", VECTOR), VECTOR.ir, [wide, weight, b.load(slot)])
            b.store(product_, slot)
