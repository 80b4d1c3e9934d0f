"""Memory plan of a program: all buffers share one array."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple, cast

import numpy as np

from aslp_jax.export.c.program import Map, Place, Program

__all__ = ["Memory", "plan"]


class Memory(NamedTuple):
    """Offsets in an array, in bytes.

    Attributes:
      buffers: offset of each buffer's first number, for each buffer of the array, and
        for each one in the output its offset there.
      output: buffers that lie in the output of the network.
      scratch: offset of the scratch memory of each step that needs some.
      idle: steps that would copy a buffer to its own place.
      size: bytes of the array.
    """

    buffers: dict[int, int]
    output: frozenset[int]
    scratch: dict[int, int]
    idle: frozenset[int]
    size: int


class _Use(NamedTuple):
    """Bytes, and the first and the last step in which they are in use.

    The offset of the bytes is a multiple of the width.
    """

    size: int
    width: int
    begin: int
    end: int


def plan(program: Program, *, outside: Collection[int] = ()) -> Memory:
    """Plans an offset for every buffer; none is overwritten before its last use.

    The result of a function of numbers takes the place of an operand that no later step
    needs. A part of a concatenation is computed in its place there.

    Args:
      program: the program.
      outside: buffers that lie elsewhere and must not be written.

    Returns:
      The offsets.
    """
    sharing = _Sharing(program, outside)
    idle = frozenset(
        index for index, step in enumerate(program.steps) if sharing.share(index, step)
    )
    output = sharing.root(program.output)[0]
    uses: list[tuple[tuple[bool, int], _Use]] = [
        ((False, buffer), use)
        for buffer, use in sharing.uses.items()
        if buffer not in outside and buffer != output
    ]
    uses += [
        ((True, index), _Use(4 * step.scratch, 4, index, index))
        for index, step in enumerate(program.steps)
        if step.scratch
    ]
    # Neither order is always the better one.
    by_time = sorted(uses, key=lambda each: (each[1].begin, each[0][0]))
    by_size = sorted(uses, key=lambda each: -each[1].size)
    size, places = min(map(_place, (by_time, by_size)), key=lambda found: found[0])
    roots = {buffer: sharing.root(buffer) for buffer in range(len(program.sizes))}
    buffers = {
        buffer: offset + places.get((False, root), 0)
        for buffer, (root, offset) in roots.items()
        if root == output or (False, root) in places
    }
    in_output = frozenset(each for each, (root, _) in roots.items() if root == output)
    scratch = {index: at for (is_scratch, index), at in places.items() if is_scratch}
    return Memory(buffers, in_output, scratch, idle, size)


class _Sharing:
    """Buffers that lie in another one, and the use of all others.

    Attributes:
      uses: use of each buffer that lies in no other one.
    """

    def __init__(self, program: Program, outside: Collection[int]) -> None:
        self._program, self._outside = program, outside
        self._widths = [np.dtype(each).itemsize for each in program.dtypes]
        self._owners: dict[int, tuple[int, int]] = {}
        self._writes: dict[int, int] = {}
        self.uses = {0: self._use(0, -1, -1)}
        for index, step in enumerate(program.steps):
            written = step.out.buffer
            self._writes[written] = self._writes.get(written, 0) + 1
            places = [each for each in step.operands if isinstance(each, Place)]
            for buffer in (written, *(each.buffer for each in places)):
                known = self.uses.get(buffer)
                begin = index if known is None else known.begin
                self.uses[buffer] = self._use(buffer, begin, index)
        last = self.uses[program.output]
        self.uses[program.output] = last._replace(end=len(program.steps))

    def _use(self, buffer: int, begin: int, end: int) -> _Use:
        width = self._widths[buffer]
        return _Use(self._program.sizes[buffer] * width, width, begin, end)

    def root(self, buffer: int) -> tuple[int, int]:
        """Returns the buffer that holds a buffer, and the offset in it."""
        offset = 0
        while buffer in self._owners:
            buffer, more = self._owners[buffer]
            offset += more
        return buffer, offset

    def share(self, index: int, step: object) -> bool:
        """Lets the result of a step share memory; returns True if the step is idle."""
        if not isinstance(step, Map):
            return False
        out = step.out
        if step.is_part:
            source = step.operands[0]
            if isinstance(source, Place) and self._is_part_of(source, step):
                offset = out.offset * self._widths[out.buffer]
                self._put(self.root(source.buffer)[0], out.buffer, offset)
                return True
        elif self._writes[out.buffer] == 1:
            for number, operand in enumerate(step.operands):
                if isinstance(operand, Place) and self._may_take(index, step, number):
                    self._put(out.buffer, self.root(operand.buffer)[0], 0)
                    break
        return False

    def _is_part_of(self, source: Place, step: Map) -> bool:
        """Returns True if a whole buffer can lie in a part of a concatenation."""
        root, offset = self.root(source.buffer)
        return (
            root not in self._outside
            and root != self.root(self._program.output)[0]
            and source.offset == offset == 0
            and self._program.sizes[root] == math.prod(step.sizes)
            and _is_contiguous(step)
        )

    def _may_take(self, index: int, step: Map, number: int) -> bool:
        """Returns True if the result of a step may overwrite one of its operands."""
        operand = cast(Place, step.operands[number])
        root, offset = self.root(operand.buffer)
        moves = [[steps[each] for steps in step.steps] for each in range(4)]
        return (
            root not in self._outside
            and self.uses[root].end == index
            and self._program.sizes[root] == self._program.sizes[step.out.buffer]
            and self._widths[root] == self._widths[step.out.buffer]
            and operand.offset == offset == step.out.offset == 0
            and all(
                moves[each] == moves[3] and other.offset == 0
                for each, other in enumerate(step.operands)
                if isinstance(other, Place) and self.root(other.buffer)[0] == root
            )
        )

    def _put(self, inner: int, outer: int, offset: int) -> None:
        """Puts a buffer that lies in no other one into another one."""
        self._owners[inner] = (outer, offset)
        root = self.root(outer)[0]
        mine, its = self.uses.pop(inner), self.uses[root]
        begin, end = min(mine.begin, its.begin), max(mine.end, its.end)
        self.uses[root] = its._replace(begin=begin, end=end)


def _is_contiguous(step: Map) -> bool:
    """Returns True if a step copies numbers that lie one after another."""
    return len(step.sizes) == 1 and set(step.steps[0]) <= {int(step.sizes[0] > 1)}


def _place(
    uses: Sequence[tuple[tuple[bool, int], _Use]],
) -> tuple[int, dict[tuple[bool, int], int]]:
    """Gives each use, in turn, the first gap that is large enough."""
    placed: list[tuple[int, _Use]] = []
    places, total = {}, 0
    for key, use in uses:
        offset = 0
        for begin, other in sorted(placed, key=lambda each: each[0]):
            if other.end < use.begin or use.end < other.begin:
                continue
            if begin - offset >= use.size:
                break
            offset = max(offset, begin + other.size)
            offset += -offset % use.width
        placed.append((offset, use))
        places[key] = offset
        total = max(total, offset + use.size)
    return total, places
