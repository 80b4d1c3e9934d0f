"""Signed selection: a method that keeps, drops or inverts each weight."""

import dataclasses
import math
import statistics
from typing import ClassVar

import jax
import jax.numpy as jnp

from aslp_jax._checks import check_temperature, fix_numbers
from aslp_jax.methods.sampled import Rescale, SampledMasks
from aslp_jax.sampling import signed_stgs

__all__ = ["Signed"]


@dataclasses.dataclass(frozen=True)
class Signed(SampledMasks):
    """Method with ternary masks: 1 keeps a weight, 0 drops it, -1 inverts it.

    Each weight has two logits, one to keep and one to invert it. The logit to drop it
    is fixed at 0, because only differences of logits matter; ASLP does the same for two
    classes. `SampledMasks` describes `scale_init`, `logit_std` and the budget:
    `keep_fraction`, `scope` and `budget_weight`.

    Attributes:
      rescale: `"smart"` (default) or `"none"`; see `SampledMasks`. `"dynamic"` is
        refused: the number kept is not a smooth function of masks with both signs.
      temperature: temperature of the sampler's gradient, > 0, default 1. It may be
        traced, so that it can fall with the step of one compiled program; such a method
        is for this program alone.

    Source: the sampler of Dupont et al. 2022, arXiv:2202.12986, for the three choices
      of Koster et al. 2022, arXiv:2201.13361.
    """

    rescale: Rescale = "smart"
    temperature: float | jax.Array = 1.0
    choices: ClassVar[tuple[int, ...]] = (2,)
    bits_per_kept_weight: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rescale == "dynamic":
            raise ValueError("Signed: rescale must be 'none' or 'smart', got 'dynamic'")
        check_temperature("Signed", self.temperature)
        if not isinstance(self.temperature, jax.core.Tracer):
            fix_numbers(self, "temperature")

    def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Samples one ternary mask with `signed_stgs`."""
        return signed_stgs(key, logits[0], logits[1], temperature=self.temperature)

    def threshold(self, logits: jax.Array) -> jax.Array:
        """Returns the likeliest of 1, 0 and -1; ties go to 0 first, then to 1."""
        keep, invert = logits
        sign = jnp.where(keep >= invert, jnp.ones_like(keep), -jnp.ones_like(keep))
        return jnp.where(jnp.maximum(keep, invert) > 0, sign, jnp.zeros_like(keep))

    def keep_probability(self, logits: jax.Array) -> jax.Array:
        """Returns the probability that a weight is kept or inverted."""
        keep, invert = logits
        top = jax.lax.stop_gradient(jnp.maximum(keep, invert))
        # An infinite logit is certain. The slopes of logaddexp there would be NaN.
        certain, zeros = jnp.isinf(top), jnp.zeros_like(keep)
        finite = (jnp.where(certain, zeros, each) for each in (keep, invert))
        return jax.nn.sigmoid(jnp.logaddexp(*finite) + jnp.where(certain, top, zeros))

    def initial_logit(self, keep_fraction: float) -> float:
        """Returns the mean of the initial logits that keeps `keep_fraction` of them.

        A weight is kept if at least one of its two logits is positive. With equal
        initial logits, `keep_fraction` is the probability of the two classes together.

        Args:
          keep_fraction: fraction to keep, in (0, 1).
        """
        if self.initial_std > 0:
            negative = math.sqrt(1 - keep_fraction)  # probability of one negative logit
            return -self.initial_std * statistics.NormalDist().inv_cdf(negative)
        return math.log(keep_fraction / (1 - keep_fraction) / 2)
