"""Supermasks: Bernoulli masks whose gradient is that of the sigmoid."""

import dataclasses

import jax

from aslp_jax.methods.bernoulli import BernoulliMasks
from aslp_jax.methods.sampled import Rescale
from aslp_jax.sampling import bernoulli_st


@dataclasses.dataclass(frozen=True)
class Supermask(BernoulliMasks):
    """Selects weights with Bernoulli masks, straight-through.

    Its authors draw afresh at test time too and report the mean over 10 networks: read
    the averaged accuracy of an evaluation.

    Attributes:
      rescale: `"dynamic"` (default, Dynamic Weight Rescale), `"smart"` or `"none"`;
        see `DrawnMasks`, as for `scale_init`, `logit_std` and the budget:
        `keep_fraction`, `scope` and `budget_weight`.
      keep_ties: whether the deterministic network keeps a logit of exactly 0.

    Source: Zhou et al. 2019, section 5.1, arXiv:1905.01067.
    """

    rescale: Rescale = "dynamic"

    def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Draws one mask with `bernoulli_st`."""
        return bernoulli_st(key, logits)
