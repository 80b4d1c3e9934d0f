"""Light, accurate subnetworks of untrained networks, found with Gumbel-Softmax."""

import importlib
from typing import TYPE_CHECKING, Any

from aslp_jax._version import __version__

if TYPE_CHECKING:
    from aslp_jax.artefact import load
    from aslp_jax.masked import Masked
    from aslp_jax.methods import ASLP, Budget, EdgePopup, Magnitude, Signed, Supermask
    from aslp_jax.sampling import stgs

__all__ = [
    "ASLP",
    "Budget",
    "EdgePopup",
    "Magnitude",
    "Masked",
    "Signed",
    "Supermask",
    "__version__",
    "load",
    "stgs",
]

_MODULES = {
    "ASLP": "methods",
    "Budget": "methods",
    "EdgePopup": "methods",
    "Magnitude": "methods",
    "Masked": "masked",
    "Signed": "methods",
    "Supermask": "methods",
    "load": "artefact",
    "stgs": "sampling",
}


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use, so that `--help` imports no JAX."""
    if name not in _MODULES:
        raise AttributeError(f"module 'aslp_jax' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"aslp_jax.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
