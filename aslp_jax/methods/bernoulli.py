"""One logit a weight: it is kept or dropped."""

import dataclasses
import math
import statistics

import jax

from aslp_jax.methods.sampled import SampledMasks


@dataclasses.dataclass(frozen=True)
class BernoulliMasks(SampledMasks):
    """Keeps each masked weight with probability sigmoid(logit).

    Subclasses say how a mask is drawn (`sample`, exactly 0 or 1), and so what gradient
    its logits get.

    Attributes:
      keep_ties: whether a logit of exactly 0 (one that never moved) is kept by the
        deterministic network. The paper keeps p > 0.5; its published code p >= 0.5.
    """

    keep_ties: bool = False

    def threshold(self, logits: jax.Array) -> jax.Array:
        """Returns 1 for what is more likely kept than not, else 0."""
        kept = logits >= 0 if self.keep_ties else logits > 0
        return kept.astype(logits.dtype)

    def keep_probability(self, logits: jax.Array) -> jax.Array:
        """Returns sigmoid(logit)."""
        return jax.nn.sigmoid(logits)

    def initial_logit(self, kept: float) -> float:
        """Returns the logit of `kept`, or what puts that quantile of all at 0."""
        if self.initial_std > 0:
            return self.initial_std * statistics.NormalDist().inv_cdf(kept)
        return math.log(kept / (1 - kept))
