"""Supermasks: Bernoulli masks whose gradient is that of the sigmoid."""

import dataclasses

import jax

from aslp_jax.methods.bernoulli import BernoulliMasks
from aslp_jax.methods.sampled import Rescale
from aslp_jax.sampling import bernoulli_st

__all__ = ["Supermask"]


@dataclasses.dataclass(frozen=True)
class Supermask(BernoulliMasks):
    """Method with straight-through Bernoulli masks, one logit a weight.

    Its authors sample at test time too and report the mean accuracy of 10 networks;
    compare with the `averaging_mean` of an evaluation. `SampledMasks` describes
    `scale_init`, `logit_std` and the budget: `keep_fraction`, `scope` and
    `budget_weight`.

    Attributes:
      rescale: `"dynamic"` (default, Dynamic Weight Rescale), `"smart"` or `"none"`; see
        `SampledMasks`.
      keep_ties: True if the deterministic network keeps a logit of exactly 0; default
        False.

    Source: Zhou et al. 2019, section 5.1, arXiv:1905.01067.
    """

    rescale: Rescale = "dynamic"

    def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Samples one mask with `bernoulli_st`."""
        return bernoulli_st(key, logits)
