"""Arbitrarily Shifted Log Parametrization: masks by straight-through Gumbel-Softmax."""

import dataclasses

import jax

from aslp_jax._checks import check_temperature, fix_numbers
from aslp_jax.methods.bernoulli import BernoulliMasks
from aslp_jax.methods.sampled import Rescale
from aslp_jax.sampling import stgs

__all__ = ["ASLP"]


@dataclasses.dataclass(frozen=True)
class ASLP(BernoulliMasks):
    """Method with straight-through Gumbel-Softmax masks, one logit a weight.

    `SampledMasks` describes `scale_init`, `logit_std` and the budget: `keep_fraction`,
    `scope` and `budget_weight`.

    Attributes:
      rescale: `"smart"` (default), `"dynamic"` or `"none"`; see `SampledMasks`.
      keep_ties: True if the deterministic network keeps a logit of exactly 0; default
        False.
      temperature: temperature of the sampler's gradient, > 0, default 1. It may be
        traced, so that it can fall with the step of one compiled program; such a method
        is for this program alone.

    Source: Dupont et al. 2022, arXiv:2202.12986, eq. (4)-(6).
    """

    rescale: Rescale = "smart"
    temperature: float | jax.Array = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_temperature("ASLP", self.temperature)
        if not isinstance(self.temperature, jax.core.Tracer):
            fix_numbers(self, "temperature")

    def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Samples one mask with `stgs`."""
        return stgs(key, logits, temperature=self.temperature)
