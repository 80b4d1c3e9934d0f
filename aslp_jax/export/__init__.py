"""Exports of a subnetwork to other programs: ONNX, C, StableHLO and npz.

The names below are public. `aslp_jax.export.operations`, the operations of the graph
that `trace` returns, is a public module. All other submodules are internal.
"""

from aslp_jax.export.formats import KINDS, Written, write
from aslp_jax.export.integer.calibration import CalibrationError
from aslp_jax.export.operations import Graph, run
from aslp_jax.export.refusal import TooLargeError, UnsupportedError
from aslp_jax.export.result import ExportResult, report
from aslp_jax.export.trace import trace

__all__ = [
    "KINDS",
    "CalibrationError",
    "ExportResult",
    "Graph",
    "TooLargeError",
    "UnsupportedError",
    "Written",
    "report",
    "run",
    "trace",
    "write",
]
