"""Light, accurate subnetworks of untrained networks, found with Gumbel-Softmax."""

from aslp_jax._version import __version__
from aslp_jax.masked import Masked
from aslp_jax.methods.aslp import ASLP
from aslp_jax.sampling import stgs

__all__ = ["ASLP", "Masked", "__version__", "stgs"]
