"""Exports of a subnetwork to other programs: ONNX, C, StableHLO and npz.

The names below are public. `aslp_jax.export.graph`, the layers that every exporter
starts from, is a public module. All other submodules are internal.
"""

from aslp_jax.export.formats import KINDS, Written, write
from aslp_jax.export.result import ExportResult, report
from aslp_jax.export.trace import UnsupportedError

__all__ = ["KINDS", "ExportResult", "UnsupportedError", "Written", "report", "write"]
