"""Methods that select a subnetwork, one file each, all with the same protocol.

A method is a frozen dataclass of options with eight pure functions. It takes the
weights of a network as a pytree and knows nothing of the network. Its functions take
two trees:

- `frozen`: weights initialised once and never trained, and other arrays that the method
  fixes.
- `params`: trained arrays, a dict of groups (`"logits"`, `"scale"`, `"weights"`, ...).
  Each group is a pytree of arrays, usually a dict from the name of a masked weight
  array (`"Conv_0/kernel"`) to an array. The optimiser gives each group its own rule;
  reports show the groups whose arrays are all scalars.
"""

from collections.abc import Callable

from aslp_jax._tree import Select, kernels, map_named, named_leaves, split_by_name
from aslp_jax.methods.aslp import ASLP
from aslp_jax.methods.base import Frozen, Method, Params, ScaledMask
from aslp_jax.methods.budget_aware import Budget
from aslp_jax.methods.edge_popup import EdgePopup
from aslp_jax.methods.magnitude import Magnitude
from aslp_jax.methods.signed import Signed
from aslp_jax.methods.supermask import Supermask

METHODS: dict[str, Callable[..., Method]] = {
    "aslp": ASLP,
    "supermask": Supermask,
    "edge_popup": EdgePopup,
    "signed": Signed,
    "budget": Budget,
    "magnitude": Magnitude,
}
"""Classes of the methods by the name that commands and files use."""

__all__ = [
    "ASLP",
    "METHODS",
    "Budget",
    "EdgePopup",
    "Frozen",
    "Magnitude",
    "Method",
    "Params",
    "ScaledMask",
    "Select",
    "Signed",
    "Supermask",
    "kernels",
    "map_named",
    "named_leaves",
    "split_by_name",
]
