"""Traces a network: from a function of weights and inputs to a graph.

JAX traces the function on a batch. `primitives` has the rules from the equations of the
jaxpr to operations. Nothing here knows a framework or a network.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax.export.constants import Constant
from aslp_jax.export.operations import Graph, Reshape
from aslp_jax.export.primitives import ACROSS, BATCH, SUPPORTED, Tracer, Value
from aslp_jax.export.refusal import Refusal, UnsupportedError

__all__ = ["trace"]


def trace(
    fn: Callable[[Any, jax.Array], Any],
    weights: Any,
    example: jax.Array | jax.ShapeDtypeStruct,
) -> Graph:
    """Traces a deterministic network.

    Args:
      fn: function from weights and a batch of inputs to a batch of outputs, such as
        `lambda variables, x: net.apply(variables, x, train=False)`.
      weights: pytree of arrays, the first argument of `fn`.
      example: one input without the batch, `[*shape]`; only shape and dtype matter.

    Returns:
      The graph. A kernel is named by the path of its array in `weights`.

    Raises:
      UnsupportedError: `fn` computes something that has no place in a graph. The
        message names the primitive and the line of source that it comes from.
    """
    try:
        return _trace(fn, weights, example)
    except Refusal as refused:
        if refused.text == f"reshape {ACROSS}" and _is_one_by_one(fn, weights, example):
            # Windows or patches of all examples were one axis, which may be undone.
            with contextlib.suppress(Refusal):
                return _trace(_one_by_one(fn), weights, example)
        where = f" ({refused.line})" if refused.line else ""
        raise UnsupportedError(
            f"trace: {refused.text} is not supported{where}; supported "
            f"primitives are {', '.join(SUPPORTED)}"
        ) from None


def _trace(
    fn: Callable[[Any, jax.Array], Any],
    weights: Any,
    example: jax.Array | jax.ShapeDtypeStruct,
) -> Graph:
    """Traces a deterministic network, or raises a `Refusal`."""
    batch = jax.ShapeDtypeStruct((BATCH, *example.shape), example.dtype)
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(weights, batch)
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    arguments: list[Value | Constant] = [
        Constant.weight(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in leaves
    ]
    arguments.append(Value(0, tuple(example.shape)))
    outputs = jax.tree.leaves(shape)
    if len(outputs) != 1:
        raise UnsupportedError(
            f"trace: the function returns {len(outputs)} arrays; expected one, "
            "[batch, ...]"
        )
    tracer = Tracer([])
    (output,) = tracer.run(closed.jaxpr, closed.consts, arguments)
    if not isinstance(output, Value):
        raise UnsupportedError("trace: the outputs do not depend on the inputs")
    if output.batch != 0:
        raise UnsupportedError(
            f"trace: the batch is axis {output.batch} of the outputs; expected axis 0"
        )
    if output.index != len(tracer.nodes):
        tracer.add(Reshape(), [output], output.shape)
    return Graph(tuple(example.shape), tuple(tracer.nodes))


def _one_by_one(
    fn: Callable[[Any, jax.Array], Any],
) -> Callable[[Any, jax.Array], Any]:
    """Returns the function that computes each example of a batch on its own."""

    def run(weights: Any, inputs: jax.Array) -> Any:
        def one(example: jax.Array) -> Any:
            return jax.tree.map(lambda leaf: leaf[0], fn(weights, example[None]))

        return jax.vmap(one)(inputs)

    return run


def _is_one_by_one(
    fn: Callable[[Any, jax.Array], Any],
    weights: Any,
    example: jax.Array | jax.ShapeDtypeStruct,
) -> bool:
    """Returns True if examples of a batch do not meet, as random inputs show."""
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(BATCH, *example.shape)), example.dtype)
    try:
        together, alone = (
            jax.tree.map(np.asarray, jax.jit(each)(weights, inputs))
            for each in (fn, _one_by_one(fn))
        )
    except Exception:  # the function of a person may raise anything
        return False
    size = float(np.ptp(together))
    return together.shape == alone.shape and np.allclose(
        alone, together, rtol=0, atol=1e-4 * size
    )
