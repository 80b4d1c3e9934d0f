"""Light, accurate subnetworks of untrained networks, found with Gumbel-Softmax."""

from aslp_jax._version import __version__
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
    "stgs",
]
