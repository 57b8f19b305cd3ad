"""A strict reader of JPEG files as T.81 defines them, in plain Python: slow, and independent of the encoder.

It takes what the encoder can write, baseline and progressive Huffman files of 8 bits, and refuses whatever
T.81 does not allow or a decoder could take in two ways: not a byte and not a bit is left over.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import ceil

import numpy as np

ZIGZAG = sorted(range(64), key=lambda k: (k // 8 + k % 8, k // 8 if (k // 8 + k % 8) % 2 else k % 8))
"""Natural places in zigzag order (figure A.6)."""


class Damage(Exception):
    """What is wrong with a file."""


def require(holds: object, message: str) -> None:
    if not holds:
        raise Damage(message)


@dataclass
class Component:
    """`planes`: indices in zigzag order, int[rows, columns, 64], of whole MCUs. `known`: by coefficient, the
    bits that are still missing; None before its first scan.
    """

    id: int
    h: int
    v: int
    table: int
    columns: int  # that hold picture
    rows: int
    planes: np.ndarray
    steps: tuple[int, ...] = ()
    known: list[int | None] = field(default_factory=lambda: [None] * 64)

    def indices(self) -> np.ndarray:
        """int[rows, columns, 64] in natural order, of the blocks that hold picture."""
        out = np.empty((self.rows, self.columns, 64), int)
        out[..., ZIGZAG] = self.planes[: self.rows, : self.columns]
        return out


@dataclass
class File:
    width: int = 0
    height: int = 0
    progressive: bool = False
    components: list[Component] = field(default_factory=list)


class Bits:
    """The bits of one interval between restarts."""

    def __init__(self, data: bytes) -> None:
        self.bits = bin(int.from_bytes(b"\1" + data))[3:]
        self.at = 0

    def take(self, count: int) -> int:
        if count == 0:
            return 0
        part = self.bits[self.at : self.at + count]
        require(len(part) == count, "the data of a scan end too early")
        self.at += count
        return int(part, 2)

    def symbol(self, codes: dict[str, int]) -> int:
        bits, at = self.bits, self.at
        for end in range(at + 1, at + 17):
            found = codes.get(bits[at:end])
            if found is not None:
                require(end <= len(bits), "the data of a scan end within a code")
                self.at = end
                return found
        raise Damage("bits that are no code")

    def signed(self, size: int) -> int:
        """EXTEND of RECEIVE (F.2.2.1)."""
        value = self.take(size)
        return value if size == 0 or value >> (size - 1) else value - (1 << size) + 1

    def end(self) -> None:
        rest = self.bits[self.at :]
        require(len(rest) < 8 and "0" not in rest, f"{len(rest)} bits are left over, or padded with zeros")


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.file = File()
        self.quantization: dict[int, tuple[int, ...]] = {}
        self.codes: dict[int, dict[str, int]] = {}
        self.interval = 0

    def read(self) -> File:
        require(self.data[:2] == b"\xff\xd8", "no SOI")
        self.at = 2
        while True:
            marker = self.marker()
            if marker == 0xD9:
                break
            body = self.segment()
            if marker == 0xDA:
                self.scan(body)
            elif marker in (0xC0, 0xC2):
                self.frame(marker == 0xC2, body)
            elif marker == 0xDB:
                self.define_steps(body)
            elif marker == 0xC4:
                self.define_codes(body)
            elif marker == 0xDD:
                require(len(body) == 2, "DRI of a wrong length")
                self.interval = int.from_bytes(body)
            else:
                require(marker == 0xFE or 0xE0 <= marker <= 0xEF, f"marker {marker:02x}")
        require(self.at == len(self.data), "bytes after EOI")
        require(self.file.components, "no frame")
        for part in self.file.components:
            require(part.known == [0] * 64, f"bits of component {part.id} are missing")
            dc, ac = part.planes[..., 0], part.planes[..., 1:]
            require(dc.min() >= -1024 and dc.max() <= 1023, "DC out of range")
            require(np.abs(ac).max() <= 1023, "AC out of range")
        return self.file

    def marker(self) -> int:
        require(self.data[self.at : self.at + 1] == b"\xff", f"no marker at byte {self.at}")
        require(self.at + 1 < len(self.data), "the file breaks off")
        self.at += 2
        return self.data[self.at - 1]

    def segment(self) -> bytes:
        length = int.from_bytes(self.data[self.at : self.at + 2])
        body = self.data[self.at + 2 : self.at + length]
        require(length >= 2 and len(body) == length - 2, "a segment breaks off")
        self.at += length
        return body

    def define_steps(self, body: bytes) -> None:
        require(body and len(body) % 65 == 0, "DQT of a wrong length")
        for start in range(0, len(body), 65):
            require(body[start] < 4, "DQT of a wrong number or precision")
            steps = [0] * 64
            for k, place in enumerate(ZIGZAG):
                steps[place] = body[start + 1 + k]
            require(min(steps) > 0, "a step of 0")
            self.quantization[body[start]] = tuple(steps)

    def define_codes(self, body: bytes) -> None:
        require(body, "DHT without a table")
        at = 0
        while at < len(body):
            require(len(body) >= at + 17, "DHT breaks off")
            kind, number, counts = body[at] >> 4, body[at] & 15, body[at + 1 : at + 17]
            symbols = body[at + 17 : at + 17 + sum(counts)]
            at += 17 + sum(counts)
            require(kind < 2 and number < 4, "DHT of a wrong number")
            require(len(symbols) == sum(counts) <= 256 and symbols, "DHT breaks off")
            require(len(set(symbols)) == len(symbols), "a symbol has two codes")
            if kind == 0:
                require(max(symbols) <= 11, "a DC category beyond 11")
            codes, code, following = {}, 0, iter(symbols)
            for length, count in enumerate(counts, 1):
                for _ in range(count):
                    require(code < (1 << length) - 1, "too many codes, or one of ones only")
                    codes[f"{code:0{length}b}"] = next(following)
                    code += 1
                code <<= 1
            self.codes[body[at - 17 - sum(counts)]] = codes

    def frame(self, progressive: bool, body: bytes) -> None:
        require(not self.file.components, "two frames")
        require(len(body) >= 6 and len(body) == 6 + 3 * body[5], "SOF of a wrong length")
        require(body[0] == 8, "not 8 bits")
        height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
        require(width and height and 1 <= body[5] <= 4, "an empty picture")
        given = [body[i : i + 3] for i in range(6, len(body), 3)]
        factors = [(one[1] >> 4, one[1] & 15) for one in given]
        require(all(1 <= h <= 4 and 1 <= v <= 4 for h, v in factors), "sampling factors out of range")
        require(sum(h * v for h, v in factors) <= 10, "an MCU of more than ten blocks")
        require(len({one[0] for one in given}) == len(given), "two components of one number")
        across, down = max(h for h, _ in factors), max(v for _, v in factors)
        self.mcus, self.mcu_rows = -(-width // (8 * across)), -(-height // (8 * down))
        self.file = File(width, height, progressive)
        for one, (h, v) in zip(given, factors, strict=True):
            columns, rows = ceil(ceil(width * h / across) / 8), ceil(ceil(height * v / down) / 8)
            planes = np.zeros((self.mcu_rows * v, self.mcus * h, 64), int)
            self.file.components.append(Component(one[0], h, v, one[2], columns, rows, planes))

    def scan(self, body: bytes) -> None:
        count = body[0] if body else 0
        require(1 <= count <= 4 and len(body) == 4 + 2 * count, "SOS of a wrong length")
        start, end, high, low = body[-3], body[-2], body[-1] >> 4, body[-1] & 15
        by_id = {part.id: part for part in self.file.components}
        parts: list[tuple[Component, int]] = []
        for i in range(count):
            require(body[1 + 2 * i] in by_id, "a scan of a component that there is not")
            parts.append((by_id[body[1 + 2 * i]], body[2 + 2 * i]))
        places = [self.file.components.index(part) for part, _ in parts]
        require(places == sorted(set(places)), "components of a scan out of order")
        if self.file.progressive:
            require((start == 0) == (end == 0) and start <= end < 64, "a wrong band")
            require(start == 0 or count == 1, "AC of several components in one scan")
            require(low < 14 and high in (0, low + 1), "wrong bits of an approximation")
        else:
            require((start, end, high, low) == (0, 63, 0, 0), "a baseline scan in part")
        for part, _ in parts:
            require(start == 0 or part.known[0] is not None, "AC before DC")
            state = high if high else None
            require(part.known[start : end + 1] == [state] * (end - start + 1), "bits out of order")
            part.known[start : end + 1] = [low] * (end - start + 1)
            require(part.table in self.quantization, "no quantization table")
            require(part.steps in ((), self.quantization[part.table]), "steps change between scans")
            part.steps = self.quantization[part.table]
        mcus = list(self.mcus_of(parts))
        size = self.interval or len(mcus)
        pieces = self.intervals(-(-len(mcus) // size))
        for i, piece in enumerate(pieces):
            self.decode(Bits(piece), mcus[i * size : (i + 1) * size], start, end, high, low)

    def mcus_of(
        self, parts: list[tuple[Component, int]]
    ) -> Iterator[list[tuple[int, Component, int, np.ndarray]]]:
        """The blocks of each MCU: which component of the scan, itself, its tables, its coefficients."""
        if len(parts) == 1:
            ((part, tables),) = parts
            for y in range(part.rows):
                for x in range(part.columns):
                    yield [(0, part, tables, part.planes[y, x])]
            return
        for y in range(self.mcu_rows):
            for x in range(self.mcus):
                yield [
                    (i, part, tables, part.planes[y * part.v + dy, x * part.h + dx])
                    for i, (part, tables) in enumerate(parts)
                    for dy in range(part.v)
                    for dx in range(part.h)
                ]

    def intervals(self, count: int) -> list[bytes]:
        """The unstuffed data between restart markers, which are numbered in turn."""
        pieces, begin = [], self.at
        while True:
            stop = self.data.find(b"\xff", self.at)
            require(0 <= stop < len(self.data) - 1, "the file breaks off in a scan")
            following = self.data[stop + 1]
            self.at = stop + 2
            if following == 0:
                continue
            pieces.append(self.data[begin:stop].replace(b"\xff\0", b"\xff"))
            if not 0xD0 <= following <= 0xD7:
                self.at = stop
                break
            require(following == 0xD0 + (len(pieces) - 1) % 8, "restart markers out of turn")
            begin = self.at
        require(len(pieces) == count, f"{len(pieces)} intervals of a scan, expected {count}")
        return pieces

    def decode(self, bits: Bits, mcus: list, start: int, end: int, high: int, low: int) -> None:
        predictions = [0] * 4
        self.run = 0  # of blocks without further coefficients
        for mcu in mcus:
            for i, _, tables, block in mcu:
                if start == 0:
                    if high:
                        block[0] |= bits.take(1) << low
                    else:
                        predictions[i] += bits.signed(bits.symbol(self.table(0, tables >> 4)))
                        block[0] = predictions[i] << low
                if end == 0:
                    continue
                codes = self.table(1, tables & 15)
                values = block.tolist()
                first = max(start, 1)
                if high:
                    self.refine(bits, codes, values, first, end, low)
                else:
                    self.ac(bits, codes, values, first, end, low)
                block[:] = values
        require(self.run == 0, "a run of empty blocks goes beyond its interval")
        bits.end()

    def table(self, kind: int, number: int) -> dict[str, int]:
        require(kind << 4 | number in self.codes, "no Huffman table")
        return self.codes[kind << 4 | number]

    def ac(self, bits: Bits, codes: dict[str, int], values: list[int], k: int, end: int, low: int) -> None:
        if self.run:
            self.run -= 1
            return
        while k <= end:
            run, size = divmod(bits.symbol(codes), 16)
            if size == 0:
                if run == 15:
                    k += 16
                    require(k <= end, "sixteen zeros and nothing behind them")
                    continue
                self.end_of_band(bits, run)
                return
            k += run
            require(k <= end and size <= 10, "a coefficient beyond its band, or too large")
            values[k] = bits.signed(size) * (1 << low)
            k += 1

    def end_of_band(self, bits: Bits, run: int) -> None:
        require(run == 0 or self.file.progressive, "a run of blocks in a baseline scan")
        self.run = (1 << run) + bits.take(run) - 1

    def refine(
        self, bits: Bits, codes: dict[str, int], values: list[int], k: int, end: int, low: int
    ) -> None:
        """G.1.2.3: corrections of known coefficients between new ones."""

        def correct(k: int) -> None:
            if bits.take(1):
                values[k] += (1 << low) if values[k] > 0 else -(1 << low)

        if self.run == 0:
            while k <= end:
                run, size = divmod(bits.symbol(codes), 16)
                if size == 0 and run < 15:
                    self.end_of_band(bits, run)
                    self.run += 1  # this block's rest is as those of the following blocks
                    break
                require(size <= 1, "a new coefficient of more than one bit")
                value = (1 << low if bits.take(1) else -(1 << low)) if size else 0
                while k <= end:
                    if values[k]:
                        correct(k)
                    elif run == 0:
                        break
                    else:
                        run -= 1
                    k += 1
                require(k <= end, "a coefficient beyond its band")
                values[k] = value
                k += 1
        if self.run:
            for place in range(k, end + 1):
                if values[place]:
                    correct(place)
            self.run -= 1


def read(data: bytes) -> File:
    """The coefficients and steps of a file. Raises `Damage`."""
    return Reader(data).read()
