"""Integer graphs with every operation, of random numbers, without calibration."""

import dataclasses

import numpy as np

from aslp_jax.artefact import WeightRecipe
from aslp_jax.artefact.subnetwork import make_layer_weights
from aslp_jax.artefact.weight_recipe import initialise
from aslp_jax.export.integer.operations import (
    IntegerGraph,
    IntegerLayer,
    IntegerNode,
    IntegerProduct,
    IntegerSum,
    IntegerWindow,
    Lookup,
    Number,
    Requantization,
    Rescale,
    limits,
)
from aslp_jax.export.operations import (
    Broadcast,
    Concatenate,
    Conv,
    Dense,
    Graph,
    Pad,
    Reshape,
    Slice,
    Transpose,
    Window,
)

SHAPE = (6, 5, 4)
SHIFT = 24
FURTHEST = 2**61
"""Offset that no product comes near to."""


@dataclasses.dataclass
class Builder:
    """Graph so far.

    Attributes:
      rng: source of all numbers.
      ternary: True if all weights are -1, 0 or 1.
      kinds: kind of each value.
      shapes: shape of each value.
      nodes: operations.
      layers: parts of the weights by name, which have a seed.
    """

    rng: np.random.Generator
    ternary: bool
    kinds: list
    shapes: list
    nodes: list = dataclasses.field(default_factory=list)
    layers: dict = dataclasses.field(default_factory=dict)

    def add(self, operation, inputs, shape, kind=None):
        """Adds an operation; returns the number of its result."""
        inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        self.nodes.append(IntegerNode(operation, inputs, tuple(shape)))
        self.shapes.append(tuple(shape))
        self.kinds.append(kind or self.kinds[inputs[0]])
        return len(self.nodes)

    def step(self, spread, kind, count=1, factors=None):
        """Returns a requantisation; one in six results lies outside of the limits.

        Args:
          spread: typical size of what is requantised.
          kind: kind of the result.
          count: number of channels.
          factors: number of multipliers, if not that of the channels.
        """
        low, high = limits(kind)
        size = 0.7 * high / spread * 2**SHIFT
        factors = count if factors is None else factors
        signs = self.rng.choice([-1, 1], factors)
        multipliers = signs * self.rng.uniform(0.5, 1, factors) * size
        offsets = self.rng.integers(low << SHIFT, high << SHIFT, count) // 2
        if count > 3:
            offsets[:2] = FURTHEST, -FURTHEST
        multipliers = np.clip(np.rint(multipliers), -(2**31) + 1, 2**31 - 1)
        return Requantization(
            multipliers.astype(np.int32), offsets + (1 << SHIFT - 1), SHIFT, low, high
        )

    def kernel(self, name, shape):
        """Returns a kernel, half of whose weights are dropped."""
        key = tuple(int(word) for word in self.rng.integers(0, 2**32, 2))
        recipe = WeightRecipe("signed_constant", key)
        if len(self.layers) % 3 == 0:
            recipe = WeightRecipe("kaiming_constant", key)
        frozen = next(iter(initialise(recipe, shape, np.float32(0.5))))
        mask = self.rng.integers(0, 2, shape).astype(np.int8)
        if len(self.layers) % 2:
            mask *= self.rng.choice(np.array([-1, 1], np.int8), shape)
        self.layers[name] = make_layer_weights(
            name, frozen, ternary_mask=mask, recipe=recipe
        )
        signs = np.sign(frozen) * mask
        size = 1 if self.ternary else self.rng.integers(1, 128, shape)
        return (signs * size).astype(np.float32)

    def layer(self, value, shape, units, kind, *, window=(), more=None):
        """Adds a layer: a convolution if it has a window, else a dense one."""
        name = f"Layer_{len(self.layers)}/kernel"
        more = {"strides": (1,) * len(window), "groups": 1, **(more or {})}
        inputs = self.shapes[value][-1] // more["groups"]
        kernel = self.kernel(name, (*window, inputs, units))
        if window:
            more = {
                "padding": ((1, 1),) * len(window),
                "dilation": (1,) * len(window),
                **more,
            }
            operation = Conv(name, kernel, **more)
        else:
            operation = Dense(name, kernel)
        typical = limits(self.kinds[value])[1] / 2
        weight = np.sqrt(np.square(kernel).sum() / units)
        count = 1 if len(self.layers) % 4 == 0 else units
        step = self.step(max(typical * weight, 1), kind, count)
        return self.add(IntegerLayer(operation, step), value, shape, kind)


def every_operation(kind, *, ternary, seed=0):
    """Returns a graph whose output holds what every operation gives.

    Args:
      kind: kind of the input, `"uint8"`, or `"int16"` for int16 alone.
      ternary: True if all weights are -1, 0 or 1.
      seed: seed of all numbers.

    Returns:
      The graph, the parts of its weights by name, and the names and sizes of the parts
      of its output.
    """
    build = Builder(np.random.default_rng(seed), ternary, [kind], [SHAPE])
    wide = kind == "int16"
    other = "int16" if wide else "int8"
    step = build.step(limits(kind)[1] / 2, other, SHAPE[-1])
    sources = [build.add(Rescale(step), 0, SHAPE, other)]
    sources += [] if wide else [0]
    parts = {}
    for index, x in enumerate(sources):
        kinds = ("int16",) * 2 if wide else ("uint8", "int8")[:: 1 - 2 * index]
        for name, value in _parts(build, x, *kinds).items():
            parts[f"{name} of {build.kinds[x]}"] = value
    flat = []
    for value in parts.values():
        size = int(np.prod(build.shapes[value]))
        value = build.add(Reshape(), value, (size,))
        if build.kinds[value] == "uint8":
            # The same numbers less 128, as int8.
            one = np.array([2], np.int32)
            less = Requantization(one, np.array([-256]), 1, -128, 127)
            value = build.add(Rescale(less), value, (size,), "int8")
        flat.append(value)
    sizes = [build.shapes[value][0] for value in flat]
    whole = Concatenate(0, (None,) * len(flat))
    build.add(whole, tuple(flat), (sum(sizes),))
    numbers = tuple(Number(each, 0.5) for each in build.kinds)
    graph = IntegerGraph(SHAPE, tuple(build.nodes), numbers, Graph(SHAPE, ()))
    return graph, build.layers, dict(zip(parts, sizes, strict=True))


def _parts(build, x, kind, other):
    """Adds each operation on one value; returns the results by name."""
    conv, add = build.layer, build.add
    high = limits(build.kinds[x])[1]
    size = int(np.prod(SHAPE))
    flat = add(Reshape(), x, (size,))
    row = add(Reshape(), x, (30, 4))
    moved = add(Transpose((1, 0, 2)), x, (5, 6, 4))
    valid = {"padding": ((0, 0), (0, 0))}
    same = conv(x, (6, 5, 8), 8, kind, window=(3, 3))
    parts = {
        "conv": same,
        "conv of many weights": conv(
            same, (6, 5, 3), 3, other, window=(7, 7), more={"padding": ((3, 3),) * 2}
        ),
        "conv of stride": conv(
            x, (3, 2, 5), 5, other, window=(3, 3), more={"strides": (2, 3)}
        ),
        "conv of asymmetric padding": conv(
            x, (7, 7, 4), 4, kind, window=(2, 3), more={"padding": ((0, 2), (3, 1))}
        ),
        "conv of dilation": conv(
            x,
            (6, 4, 5),
            5,
            other,
            window=(3, 2),
            more={"dilation": (2, 3), "padding": ((2, 2), (1, 1))},
        ),
        "conv of groups": conv(
            x, (6, 5, 6), 6, kind, window=(3, 3), more={"groups": 2}
        ),
        "depthwise conv": conv(
            x, (3, 3, 8), 8, other, window=(3, 3), more={"groups": 4, "strides": (2, 2)}
        ),
        "1-D conv": conv(
            row,
            (15, 3),
            3,
            kind,
            window=(5,),
            more={"strides": (2,), "padding": ((4, 0),)},
        ),
        "pointwise conv": conv(x, (6, 5, 5), 5, other, window=(1, 1), more=valid),
        "dense on channels": conv(x, (6, 5, 7), 7, kind),
        "dense, flat": conv(flat, (11,), 11, other),
        "dense on what a conv gives": conv(add(Reshape(), same, (240,)), (9,), 9, kind),
        "dense on what is transposed": conv(
            add(Reshape(), moved, (size,)), (5,), 5, other
        ),
    }
    pooled = conv(x, (6, 5, 5), 5, other, window=(3, 3))
    pair = Window("max", (2, 2, 1), (2, 2, 1), ((0, 0),) * 3)
    parts["conv and pool"] = add(pair, pooled, (3, 2, 5))
    if kind != "int16":
        for result in (kind, other):
            low, top = limits(result)
            table = build.rng.integers(low, top + 1, 256).astype(np.int16)
            table[0] = table[1]
            first = 0 if build.kinds[x] == "uint8" else -128
            parts[f"lookup to {result}"] = add(Lookup(table, first), x, SHAPE, result)
    each = build.step(high / 2, kind, 4)
    parts["rescale"] = add(Rescale(each), x, SHAPE, kind)
    lines = add(Slice((2, 0, 0), (1, 1, 1)), x, (1, 5, 4))
    total = build.step(high, other, 1, factors=2)
    parts["sum"] = add(IntegerSum(total), (x, parts["rescale"]), SHAPE, other)
    parts["sum that broadcasts"] = add(
        IntegerSum(build.step(high, kind, 1, factors=2)), (lines, x), SHAPE, kind
    )
    parts["product"] = add(
        IntegerProduct(build.step(high * high / 4, other)), (x, lines), SHAPE, other
    )
    channels = add(Reshape(), add(Slice((3, 2, 0), (1, 1, 1)), x, (1, 1, 4)), (4,))
    parts["product with channels"] = add(
        IntegerProduct(build.step(high * high / 4, kind)), (x, channels), SHAPE, kind
    )
    window = Window("sum", (3, 2, 1), (1, 2, 1), ((1, 1), (0, 1), (0, 0)))
    parts["sum of windows"] = add(
        IntegerWindow(window, build.step(high * 2, other)), x, (6, 3, 4), other
    )
    window = Window("sum", (6, 5, 1), (1, 1, 1), ((0, 0),) * 3)
    parts["mean of pixels"] = add(
        IntegerWindow(window, build.step(high * 10, kind)), x, (1, 1, 4), kind
    )
    window = Window("max", (3, 2, 1), (2, 1, 1), ((1, 1), (0, 1), (0, 0)))
    parts["maximum of windows"] = add(window, x, (3, 5, 4))
    parts["pad"] = add(
        Pad(((1, 0), (0, 2), (1, 1)), -3 if kind == "int16" else 3), x, (7, 7, 6)
    )
    parts["slice"] = add(Slice((1, 0, 1), (2, 3, 1)), x, (3, 2, 2))
    constant = build.rng.integers(0, 100, (6, 5, 2)).astype(np.int64)
    parts["concatenation"] = add(
        Concatenate(2, (None, constant, None)), (x, x), (6, 5, 10)
    )
    parts["transpose"] = add(Transpose((2, 0, 1)), x, (4, 6, 5))
    parts["broadcast"] = add(Broadcast(), lines, (2, 3, 5, 4))
    return parts
