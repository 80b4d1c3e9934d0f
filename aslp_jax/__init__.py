"""Light, accurate subnetworks of untrained networks, found with Gumbel-Softmax."""

from aslp_jax._version import __version__
from aslp_jax.masked import Masked
from aslp_jax.methods import ASLP, EdgePopup, Supermask
from aslp_jax.sampling import stgs

__all__ = ["ASLP", "EdgePopup", "Masked", "Supermask", "__version__", "stgs"]
