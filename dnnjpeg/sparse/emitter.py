"""Writing a function of integers as LLVM IR: variables, loads, loops, prefetches."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

_I64, _I32 = ir.IntType(64), ir.IntType(32)


class Emitter:
    """A function `void name(int64, ...)` of a module, and its builder."""

    def __init__(self, module: ir.Module, name: str, arguments: int) -> None:
        signature = ir.FunctionType(ir.VoidType(), [_I64] * arguments)
        self.function = ir.Function(module, signature, name)
        self.function.linkage = "internal"
        self.function.attributes.add("noinline")
        self.function.attributes.add("nounwind")
        self.module = module
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))

    def _variable(self, value: ir.Value | int) -> ir.Value:
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(_I64)
        self.builder.store(value if isinstance(value, ir.Value) else _I64(value), slot)
        return slot

    def _load(self, address: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        return self.builder.load(self.builder.inttoptr(address, kind.as_pointer()), align=align)

    def _block(self, name: str) -> ir.Block:
        return self.builder.append_basic_block(name)

    @contextmanager
    def _loop(self, variable: ir.Value, end: ir.Value) -> Iterator[None]:
        """Loop while the variable is below `end`. It grows by one each time."""
        b = self.builder
        head, body, after = self._block("head"), self._block("body"), self._block("after")
        b.branch(head)
        b.position_at_end(head)
        b.cbranch(b.icmp_unsigned("<", b.load(variable), end), body, after)
        b.position_at_end(body)
        yield
        b.store(b.add(b.load(variable), _I64(1)), variable)
        self._back(b.branch(head))
        b.position_at_end(after)

    def _back(self, branch: Any) -> None:
        """Disable unrolling for a branch. Lists are short, so an unrolled loop is slower."""
        disable = self.module.add_metadata([ir.MetaDataString(self.module, "llvm.loop.unroll.disable")])
        loop = ir.MDValue(self.module, (), name=str(len(self.module.metadata)))
        loop.operands = (loop, disable)  # a loop's own node begins with itself
        branch.set_metadata("llvm.loop", loop)

    def _opaque(self, value: ir.Value) -> ir.Value:
        """The same integer in a general register, without its origin, so that LLVM cannot optimise it."""
        return self.builder.asm(ir.FunctionType(value.type, [value.type]), "", "=r,0", [value], False)
