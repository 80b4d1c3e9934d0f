"""Graph of a network of any framework, computed in float32."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax import functional
from aslp_jax.export.operations import Graph, Shape
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import trace

__all__ = ["function_of", "graph_of"]


def function_of(net: Any) -> functional.Network:
    """Returns a network as pure functions, in the form that is best exported.

    Args:
      net: network, in any form that `functional.network` takes.

    Returns:
      The network. A Linen module with the fields `dtype` and `conv_general_dilated`
      computes in float32, with the convolution of XLA.
    """
    if isinstance(net, nn.Module):
        fields = {field.name for field in dataclasses.fields(net)}
        plain = {"dtype": jnp.float32, "conv_general_dilated": None}
        net = net.clone(**{name: plain[name] for name in plain if name in fields})
    return functional.network(net)


def graph_of(net: Any, variables: Mapping[str, Any], input_shape: Shape) -> Graph:
    """Returns the simplified graph of a network, traced from its module.

    The graph computes in float32, whatever the dtype of the module.

    Args:
      net: network, in any form that `functional.network` takes.
      variables: variables of the network, `{"params": effective weights,
        **collections}`.
      input_shape: shape of one input, such as `(height, width, channels)`.

    Returns:
      The graph. A kernel is named by its path in the weights, such as
      `"Conv_0/kernel"`.

    Raises:
      UnsupportedError: the network computes something that has no place in a graph.
    """
    network = function_of(net)
    collections = jax.tree.map(_to_float32, dict(variables))
    weights = collections.pop("params", {})
    traced = trace(
        lambda weights, inputs: network.apply(weights, collections, inputs)[0],
        weights,
        jax.ShapeDtypeStruct(input_shape, jnp.float32),
    )
    return simplify(traced)


def _to_float32(leaf: Any) -> Any:
    """Returns an array in float32, if it holds floats."""
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return np.asarray(leaf, np.float32)
    return leaf
