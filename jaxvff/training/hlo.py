"""Reading a program as XLA has compiled it for a TPU: what its innermost operations cost.

XLA's own totals (`cost_analysis`) count the body of a loop once, however often it runs. Here loops
count by their number of turns, and only what a turn of the outermost loop does: an iteration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
_ARRAY = re.compile(r"(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"(?:to_apply|calls|body|\w+_computations?)=\{?((?:%[\w.\-]+(?:, )?)+)\}?")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_SOURCE = re.compile(r'op_name="([^"]*)"')
_BITS = {"pred": 8, "s4": 4, "u4": 4}
# These move no data by themselves; an async pair counts where it starts, or where it is updated.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while"}
_FREE |= {"copy-done", "slice-done", "call", "conditional", "async-done", "opt-barrier"}
FAST = "S(1)"  # the memory space of a chip's own scratch memory: no traffic


class Instruction(NamedTuple):
    """An instruction of a computation."""

    name: str
    op: str
    result: str  # its type, with layouts
    operands: tuple[str, ...]  # names
    text: str

    @property
    def cycles(self) -> int | None:
        """XLA's estimate; None where it has none (gathers, scatters, most scalars)."""
        found = _CYCLES.search(self.text)
        return int(found[1]) if found else None

    @property
    def source(self) -> str:
        """Where in the program it comes from."""
        found = _SOURCE.search(self.text)
        return found[1] if found else ""


class Step(NamedTuple):
    """An instruction that an iteration runs, and how often."""

    instruction: Instruction
    times: int
    traffic: int  # bytes between the chip's main memory and its cores, each time
    rows: int  # that it picks one by one, each time; XLA has no estimate of these

    @property
    def picked(self) -> int:
        """Rows that it picks, all times together."""
        return self.times * self.rows

    @property
    def cycles(self) -> int:
        """All times together; 0 where XLA has no estimate."""
        return self.times * (self.instruction.cycles or 0)


class Module(NamedTuple):
    """A compiled program: its computations by name."""

    computations: Mapping[str, Sequence[Instruction]]
    entry: str

    def iteration(self) -> list[Step]:
        """What one turn of the outermost loop runs; the whole program where there is no loop."""
        loops = [i for i in self.computations[self.entry] if i.op == "while"]
        names = [_called(loop.text, "body")[0] for loop in loops] or [self.entry]
        return [step for name in names for step in self._steps(name, 1)]

    def _steps(self, name: str, times: int) -> Iterator[Step]:
        types = {i.name: i.result for i in self.computations[name]}
        for instruction in self.computations[name]:
            if instruction.op == "while":
                (condition,) = _called(instruction.text, "condition")
                (body,) = _called(instruction.text, "body")
                yield from self._steps(body, times * self._turns(condition))
            elif instruction.op in ("call", "conditional"):
                for called in _CALLED.findall(instruction.text):
                    for other in re.findall(r"%([\w.\-]+)", called):
                        yield from self._steps(other, times)
            elif instruction.op not in _FREE:
                traffic = self._traffic(instruction, types)
                yield Step(instruction, times, traffic, self._rows(instruction))

    def _rows(self, instruction: Instruction) -> int:
        """Rows that the gathers of an instruction pick."""
        if instruction.op == "fusion":
            (name,) = _called(instruction.text, "calls")
            return sum(self._rows(inside) for inside in self.computations.get(name, ()))
        sizes = re.search(r"slice_sizes=\{([\d,]*)\}", instruction.text)
        if instruction.op != "gather" or not sizes:
            return 0
        (_, shape, _) = _ARRAY.findall(instruction.result)[0]
        return _product(shape) // _product(sizes[1])

    def _traffic(self, instruction: Instruction, types: Mapping[str, str]) -> int:
        """Bytes; of an array of which slices alone are read or written, those slices."""
        operands = [types.get(name, "") for name in instruction.operands]
        if instruction.op.endswith("-start"):  # one array that moves; its type names both ends
            return max((nbytes(type_) for type_ in operands), default=0)
        if instruction.op == "async-update":
            # A gather of the SparseCores, ((array, rows), result, ...): it reads and writes rows.
            kind, shape, layout = _ARRAY.findall(instruction.result)[len(operands) - 1]
            return 2 * nbytes(f"{kind}[{shape}]{layout}")
        if instruction.op != "fusion":
            return nbytes(instruction.result) + sum(map(nbytes, operands))
        (name,) = _called(instruction.text, "calls")
        total = sum(
            min(nbytes(type_), self._read(name, i)) for i, type_ in enumerate(operands) if type_
        )
        written = self._written(name)
        parts = _ARRAY.findall(instruction.result)
        for (kind, shape, layout), size in zip(parts, written, strict=False):
            total += min(nbytes(f"{kind}[{shape}]{layout}"), size)
        return total

    def _read(self, name: str, parameter: int) -> int:
        """Bytes that a fused computation reads of its n-th parameter."""
        inside = self.computations[name]
        text = f"parameter({parameter})"
        found = next((i for i in inside if i.op == "parameter" and text in i.text), None)
        return self._used(name, found) if found else 0

    def _used(self, name: str, what: Instruction) -> int:
        total = 0
        for user in self.computations[name]:
            if what.name not in user.operands:
                continue
            place = user.operands.index(what.name)
            if user.op in ("bitcast", "reshape"):
                total += self._used(name, user)
            elif user.op in ("dynamic-slice", "gather", "slice") and place == 0:
                total += nbytes(user.result, everywhere=True)
            elif user.op in ("dynamic-update-slice", "scatter") and place == 0:
                continue  # what is put into it counts as written
            elif user.op == "fusion":
                total += self._read(_called(user.text, "calls")[0], place)
            else:
                return nbytes(what.result, everywhere=True)
        return min(total, nbytes(what.result, everywhere=True))

    def _written(self, name: str, which: str | None = None) -> list[int]:
        """Bytes that a fused computation writes of each of its results."""
        inside = {i.name: i for i in self.computations[name]}
        root = inside[which] if which else [*inside.values()][-1]
        if root.op == "tuple":
            return [size for one in root.operands for size in self._written(name, one)]
        if root.op in ("bitcast", "reshape") and root.operands[0] in inside:
            return self._written(name, root.operands[0])
        if root.op == "fusion":
            return self._written(_called(root.text, "calls")[0])
        if root.op == "dynamic-update-slice":
            return [nbytes(inside[root.operands[1]].result, everywhere=True)]
        if root.op == "scatter":
            return [nbytes(inside[root.operands[-1]].result, everywhere=True)]
        return [nbytes(root.result, everywhere=True)]

    def _turns(self, condition: str) -> int:
        """Of a loop that counts up from 0 to a constant; 1 where the number is not known."""
        values = {}
        for i in self.computations[condition]:
            if i.op == "constant" and (found := re.search(r"constant\((\d+)\)", i.text)):
                values[i.name] = int(found[1])
        last = self.computations[condition][-1]
        if last.op == "compare" and "direction=LT" in last.text:
            return values.get(last.operands[-1], 1)
        return max(values.values(), default=1)


def read(text: str) -> Module:
    """A module from what `compiled.as_text()` gives.

    Raises:
      ValueError: it has no entry.
    """
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        if head := _COMPUTATION.fullmatch(line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif current and (found := _INSTRUCTION.match(line)):
            name, result, op, rest = found.groups()
            operands = tuple(re.findall(r"%([\w.\-]+)", rest.partition(")")[0]))
            computations[current].append(Instruction(name, op, result, operands, line))
    if not entry:
        raise ValueError("no computation is marked as ENTRY: this is no text of an HLO module")
    return Module(computations, entry)


def nbytes(type_: str, *, everywhere: bool = False) -> int:
    """Bytes of a type such as `f32[64,3]{1,0:T(8,128)}`, unpadded.

    Args:
      type_: as HLO writes it.
      everywhere: also what lies in the chip's scratch memory; otherwise its main memory alone.
    """
    total = 0
    for name, shape, layout in _ARRAY.findall(type_):
        if FAST in layout and not everywhere:
            continue
        bits = _BITS.get(name) or int(re.sub(r"\D.*", "", re.sub(r"^\D+", "", name)))
        total += _product(shape) * bits // 8
    return total


def _product(shape: str) -> int:
    return math.prod(int(n) for n in shape.split(",") if n)


def _called(text: str, role: str) -> list[str]:
    return re.findall(rf"\b{role}=%([\w.\-]+)", text)
