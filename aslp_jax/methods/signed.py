"""Signed selection: each weight is kept, dropped or inverted."""

import dataclasses
import math
import statistics
from typing import ClassVar

import jax
import jax.numpy as jnp

from aslp_jax.methods.sampled import Rescale, SampledMasks
from aslp_jax.sampling import signed_stgs


@dataclasses.dataclass(frozen=True)
class Signed(SampledMasks):
    """Selects a factor of 1, 0 or -1 for each weight, as ASLP selects 1 or 0.

    Each weight has two logits, to be kept and to be inverted; that to be dropped is
    fixed at 0, which leaves the free shift of the logits out, as ASLP does for two
    classes.

    Attributes:
      rescale: `"smart"` (default) or `"none"`; see `DrawnMasks`. Not `"dynamic"`: the
        number kept is no smooth function of factors on both sides of 0.
      temperature: > 0, of the sampler's gradient.

    Source: the sampler of Dupont et al. 2022, arXiv:2202.12986, for the three choices
      of Koster et al. 2022, arXiv:2201.13361.
    """

    rescale: Rescale = "smart"
    temperature: float = 1.0
    choices: ClassVar[tuple[int, ...]] = (2,)
    bits_per_kept_weight: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rescale == "dynamic":
            raise ValueError("Signed: rescale must be 'none' or 'smart', got 'dynamic'")
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                "Signed: temperature must be positive and finite, got "
                f"{self.temperature}"
            )

    def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Draws the factors of one array with `signed_stgs`."""
        return signed_stgs(key, logits[0], logits[1], temperature=self.temperature)

    def threshold(self, logits: jax.Array) -> jax.Array:
        """Returns the likeliest of 1, 0 and -1; of equal ones 0 first, then 1."""
        keep, invert = logits
        sign = jnp.where(keep >= invert, jnp.ones_like(keep), -jnp.ones_like(keep))
        return jnp.where(jnp.maximum(keep, invert) > 0, sign, jnp.zeros_like(keep))

    def keep_probability(self, logits: jax.Array) -> jax.Array:
        """Returns the probability to be kept or inverted."""
        return jax.nn.sigmoid(jnp.logaddexp(logits[0], logits[1]))

    def initial_logit(self, kept: float) -> float:
        """Returns where `kept` of the weights have at least one logit above 0."""
        if self.initial_std > 0:
            both_below = math.sqrt(1 - kept)
            return -self.initial_std * statistics.NormalDist().inv_cdf(both_below)
        return math.log(kept / (1 - kept) / 2)
