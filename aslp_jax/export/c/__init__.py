"""Encoder of a C99 source and header.

`encode`, `encode_graph` and their types are what other packages use; the submodules and
the C files in `runtime/` are internal.
"""

from aslp_jax.export.c.code import Code, encode_graph, encode_integer_graph
from aslp_jax.export.c.encode import encode
from aslp_jax.export.c.interface import Inputs, Pixels
from aslp_jax.export.c.weights import STORAGES, Storage

__all__ = [
    "STORAGES",
    "Code",
    "Inputs",
    "Pixels",
    "Storage",
    "encode",
    "encode_graph",
    "encode_integer_graph",
]
