"""Encoder of a C99 source and header.

`encode` and the storages are what other packages use; the submodules (code, layers,
weights, memory plan) and the C files in `runtime/` are internal.
"""

from aslp_jax.export.c.code import encode
from aslp_jax.export.c.weights import STORAGES, Storage

__all__ = ["STORAGES", "Storage", "encode"]
