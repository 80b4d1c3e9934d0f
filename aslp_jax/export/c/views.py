"""Views: where the numbers of a value lie in a buffer.

A view has digits for each axis, as a number has. The first digit counts most, each has
a size, and each moves by a step of its own. So transposing, repeating, cutting and most
reshaping copy nothing, and a flattened image may lie in memory channel by channel.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from aslp_jax.export.operations import Shape

__all__ = [
    "Digits",
    "View",
    "broadcast",
    "channels_first",
    "cut",
    "loops",
    "permute",
    "planes",
    "reshape",
    "stored",
]

Digits = tuple[tuple[int, int], ...]
"""Size and step of each digit, the outermost first; none for an axis of size 1."""


class View(NamedTuple):
    """Numbers in a buffer.

    Attributes:
      buffer: number of the buffer.
      offset: place of the first number.
      axes: digits of each axis.
    """

    buffer: int
    offset: int
    axes: tuple[Digits, ...]

    @property
    def shape(self) -> Shape:
        """Size along each axis."""
        return tuple(math.prod(size for size, _ in axis) for axis in self.axes)

    @property
    def digits(self) -> Digits:
        """Digits of all axes as one number, the fewest possible."""
        return _merge(itertools.chain(*self.axes))

    def is_whole(self, size: int) -> bool:
        """Returns True if each of a buffer's `size` numbers is in the view once."""
        ordered = sorted(self.digits, key=lambda digit: digit[1])
        place = 1
        for count, step in ordered:
            if step != place:
                return False
            place *= count
        return self.offset == 0 and place == size


def channels_first(rank: int) -> tuple[int, ...]:
    """Returns the axes from the outermost to the innermost, the last axis first."""
    return (rank - 1, *range(rank - 1)) if rank else ()


def stored(buffer: int, shape: Shape, order: Sequence[int]) -> View:
    """Returns the view of a whole buffer.

    Args:
      buffer: number of the buffer.
      shape: size along each axis.
      order: axes from the outermost to the innermost.
    """
    axes: list[Digits] = [()] * len(shape)
    step = 1
    for axis in reversed(order):
        if shape[axis] > 1:
            axes[axis] = ((shape[axis], step),)
            step *= shape[axis]
    return View(buffer, 0, tuple(axes))


def permute(view: View, permutation: Sequence[int]) -> View:
    """Returns a view with its axes in another order."""
    return view._replace(axes=tuple(view.axes[axis] for axis in permutation))


def broadcast(view: View, shape: Shape) -> View:
    """Repeats a view along new first axes and axes of size 1."""
    axes = ((),) * (len(shape) - len(view.axes)) + view.axes
    sizes = (1,) * (len(shape) - len(view.axes)) + view.shape
    return view._replace(
        axes=tuple(
            digits if old == new else ((new, 0),)
            for digits, old, new in zip(axes, sizes, shape, strict=True)
        )
    )


def cut(
    view: View, starts: Sequence[int], strides: Sequence[int], shape: Shape
) -> View | None:
    """Returns every stride-th position from a start; None if steps are irregular."""
    offset, axes = view.offset, []
    for digits, old, start, stride, new in zip(
        view.axes, view.shape, starts, strides, shape, strict=True
    ):
        if new == old:
            axes.append(digits)
            continue
        rest = start
        for size, step in reversed(digits):
            offset += rest % size * step
            rest //= size
        if new == 1:
            axes.append(())
        elif len(digits) == 1:
            axes.append(((new, digits[0][1] * stride),))
        else:
            return None
    return View(view.buffer, offset, tuple(axes))


def reshape(view: View, shape: Shape) -> View | None:
    """Returns the same numbers in another shape; None if a copy is needed."""
    rest = list(reversed(view.digits))
    axes = []
    for size in shape:
        axis = []
        while size > 1:
            count, step = rest.pop()
            if size % count == 0:
                axis.append((count, step))
                size //= count
            elif count % size == 0:
                axis.append((size, step * (count // size)))
                rest.append((count // size, step))
                size = 1
            else:
                return None
        axes.append(tuple(axis))
    return view._replace(axes=tuple(axes))


def planes(view: View) -> tuple[int, int] | None:
    """Returns the channels of a view and the size of each, if they lie one by one.

    A vector may be a flattened image, whose channels are planes.

    Args:
      view: value with its channels on the last axis.

    Returns:
      Number of planes, and numbers in each; None if the numbers lie in another order.
    """
    *space, channels = view.axes
    pixels = _merge(itertools.chain(*space))
    inner = _merge(channels)
    if not space and len(inner) == 2:
        pixels, inner = inner[:1], inner[1:]
    size = math.prod(count for count, _ in pixels)
    if pixels not in ((), ((size, 1),)):
        return None
    count = math.prod(each for each, _ in inner)
    return (count, size) if inner in ((), ((count, size),)) else None


def loops(views: Sequence[View]) -> tuple[list[int], list[list[int]]] | None:
    """Returns loops that visit the same index of several views at once.

    Args:
      views: views of one shape.

    Returns:
      Size of each loop, the outermost first, and the step of each view in each loop.
      None if the digits of an axis do not fit together.
    """
    found: list[tuple[int, list[int]]] = []
    for together in zip(*(view.axes for view in views), strict=True):
        refined = _refine(together)
        if refined is None:
            return None
        found += refined
    # The innermost loop moves least.
    found.sort(key=lambda loop: -sum(map(abs, loop[1])))
    merged: list[tuple[int, list[int]]] = []
    for size, steps in found:
        if merged and merged[-1][1] == [step * size for step in steps]:
            merged[-1] = (merged[-1][0] * size, steps)
        else:
            merged.append((size, steps))
    merged = merged or [(1, [0] * len(views))]
    return [size for size, _ in merged], [steps for _, steps in merged]


def _merge(digits: Iterable[tuple[int, int]]) -> Digits:
    """Joins digits that move as one."""
    merged: list[tuple[int, int]] = []
    for size, step in digits:
        if merged and merged[-1][1] == step * size:
            merged[-1] = (merged[-1][0] * size, step)
        else:
            merged.append((size, step))
    return tuple(merged)


def _refine(together: Sequence[Digits]) -> list[tuple[int, list[int]]] | None:
    """Splits the digits of one axis, so that all views have digits of one size."""
    places = {
        math.prod(size for size, _ in digits[index:])
        for digits in together
        for index in range(len(digits) + 1)
    }
    ordered = sorted(places, reverse=True)
    if any(large % small for large, small in itertools.pairwise(ordered)):
        return None
    return [
        (large // small, [_step(digits, small) for digits in together])
        for large, small in itertools.pairwise(ordered)
    ]


def _step(digits: Digits, place: int) -> int:
    """Returns how far a view moves where the index along an axis grows by `place`."""
    inner = 1
    for size, step in reversed(digits):
        if place < inner * size:
            return step * (place // inner)
        inner *= size
    return 0
