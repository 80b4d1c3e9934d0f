"""Base of the methods with one logit a weight, which is kept or dropped."""

import dataclasses
import math
import statistics

import jax

from aslp_jax.methods.sampled import SampledMasks

__all__ = ["BernoulliMasks"]


@dataclasses.dataclass(frozen=True)
class BernoulliMasks(SampledMasks):
    """Base of the methods that keep a weight with probability sigmoid(logit).

    Subclasses define `sample`, which returns masks of exactly 0 and 1, and with it the
    gradient of the logits.

    Attributes:
      keep_ties: True if the deterministic network keeps a logit of exactly 0, the value
        at the start; default False. The paper keeps p > 0.5, its published code
        p >= 0.5.
    """

    keep_ties: bool = False

    def threshold(self, logits: jax.Array) -> jax.Array:
        """Returns the likeliest mask: 1 for a positive logit, else 0."""
        kept = logits >= 0 if self.keep_ties else logits > 0
        return kept.astype(logits.dtype)

    def keep_probability(self, logits: jax.Array) -> jax.Array:
        """Returns the keep-probability, sigmoid(logit)."""
        return jax.nn.sigmoid(logits)

    def initial_logit(self, keep_fraction: float) -> float:
        """Returns the mean of the initial logits that keeps `keep_fraction` of them.

        With equal initial logits, the logit whose sigmoid is `keep_fraction`.

        Args:
          keep_fraction: fraction to keep, in (0, 1).
        """
        if self.initial_std > 0:
            return self.initial_std * statistics.NormalDist().inv_cdf(keep_fraction)
        return math.log(keep_fraction / (1 - keep_fraction))
