"""Straight-through samplers: a key and logits in, exact zeros and ones out.

The forward pass returns a discrete sample and the backward pass the gradient of a
smooth function, so that a network with discrete choices can be trained by gradient. The
file is long because it holds each sampler with its noise, its gradient and its checks.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax._checks import check_temperature, single_key
from aslp_jax.ops import threefry

__all__ = [
    "bernoulli_st",
    "gumbel_noise",
    "logistic_noise",
    "naive_gumbel_softmax",
    "signed_stgs",
    "stgs",
]


def stgs(
    key: jax.Array,
    logits: jax.Array,
    shape: int | Sequence[int] | None = None,
    *,
    temperature: float | jax.Array = 1.0,
) -> jax.Array:
    """Samples Bernoulli(sigmoid(logits)) as floats; gradients flow straight through.

    The argmax of (logit + Gumbel, 0 + Gumbel') is the sign of logit + Logistic noise,
    so one logistic draw replaces two Gumbel draws and no log(sigmoid) is ever taken.
    The signature is that of `jax.random.bernoulli(key, p, shape)`, with logits in place
    of p.

    The key is one key, typed or raw (uint32, a key of the default generator), of any
    generator that JAX has; `jax.vmap` samples with many.

    The noise is float32 or wider for logits of any dtype, because noise in bfloat16
    would bias the kept fraction. The gradient with respect to the logits and to the
    temperature is the gradient of `sigmoid((logits + noise) / temperature)`.

    Args:
      key: one PRNG key, consumed by this call.
      logits: float array `[*batch]`; the keep-probability is `sigmoid(logits)`.
        Infinite logits are certain and get no gradient; NaN stays NaN.
      shape: shape of the result, as in `jax.random.bernoulli`; `[*batch]` must
        broadcast to it. Default: the shape of `logits`.
      temperature: scalar > 0, default 1; may be traced. Shapes the gradient, never the
        sample.

    Returns:
      `shape` in `logits.dtype`, each entry exactly 0 or 1.

    Raises:
      TypeError: `logits` is not floating point, or `key` is no PRNG key.
      ValueError: `temperature` is not a positive finite scalar, `logits` does not
        broadcast to `shape`, or `key` is an array of keys.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from aslp_jax import stgs
      >>> logits = jnp.array([-jnp.inf, 0.0, jnp.inf])
      >>> mask = stgs(jax.random.key(0), logits)
      >>> bool((mask == 0).any() and (mask == 1).any())
      True

    Source: Dupont et al. 2022, eq. (4)-(5), arXiv:2202.12986.
    """
    logits = _broadcast("stgs", logits, shape)
    check_temperature("stgs", temperature)
    key = single_key("stgs", key)
    wide = logits.astype(_wide(logits.dtype))
    one = isinstance(temperature, int | float) and temperature == 1
    given = None if one else jnp.asarray(temperature, wide.dtype)
    return _keep(wide, threefry.bits(key, wide.shape), given).astype(logits.dtype)


def bernoulli_st(
    key: jax.Array, logits: jax.Array, shape: int | Sequence[int] | None = None
) -> jax.Array:
    """Samples Bernoulli(sigmoid(logits)) as floats; the gradient is the sigmoid's.

    The straight-through estimator multiplies the gradient by sigmoid'(logit), which
    does not depend on the sample. At large logits it vanishes sooner than the gradient
    of `stgs`. With the same key, `stgs` returns the same sample.

    Args:
      key: one PRNG key, consumed by this call.
      logits: float array `[*batch]`; the keep-probability is `sigmoid(logits)`.
      shape: shape of the result; `[*batch]` must broadcast to it. Default: the shape
        of `logits`.

    Returns:
      `shape` in `logits.dtype`, each entry exactly 0 or 1.

    Raises:
      TypeError: `logits` is not floating point, or `key` is no PRNG key.
      ValueError: `logits` does not broadcast to `shape`, or `key` is an array of keys.

    Source: Zhou et al. 2019, section 5.1, arXiv:1905.01067: m = Bern(sigma(s)) +
      sigma(s) - stop_gradient(sigma(s)).
    """
    logits = _broadcast("bernoulli_st", logits, shape)
    key = single_key("bernoulli_st", key)
    wide = logits.astype(_wide(logits.dtype))
    hard = _keep(jax.lax.stop_gradient(wide), threefry.bits(key, wide.shape), None)
    soft = jax.nn.sigmoid(wide)
    # The brackets make the sample exactly 0 or 1.
    return (hard + (soft - jax.lax.stop_gradient(soft))).astype(logits.dtype)


def signed_stgs(
    key: jax.Array,
    keep: jax.Array,
    invert: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
) -> jax.Array:
    """Samples 1, 0 or -1 from the logits [keep, 0, invert]; gradients flow through.

    This is the straight-through Gumbel-Softmax of three classes, with one logit fixed
    at 0. The sample is the class of the largest of keep + g, g' and invert + g''. The
    gradient is that of softmax(keep) - softmax(invert), taken over the three.

    Args:
      key: one PRNG key, consumed by this call.
      keep: logits of 1, float array. Infinite logits are certain and get no gradient;
        NaN stays NaN.
      invert: logits of -1, float array of the same shape and dtype.
      temperature: scalar > 0, default 1; may be traced. Shapes the gradient, never the
        sample.

    Returns:
      Shape and dtype of `keep`, each entry exactly 1, 0 or -1.

    Raises:
      TypeError: the logits are not floating point, or differ in dtype; or `key` is no
        PRNG key.
      ValueError: `temperature` is not a positive finite scalar, the shapes differ, or
        `key` is an array of keys.

    Source: Jang et al. 2017, arXiv:1611.01144; the fixed logit after Dupont et al.
      2022, eq. (4).
    """
    if jnp.shape(keep) != jnp.shape(invert):
        raise ValueError(
            f"signed_stgs: keep and invert must have one shape, got {jnp.shape(keep)} "
            f"and {jnp.shape(invert)}"
        )
    keep, invert = (_broadcast("signed_stgs", each, None) for each in (keep, invert))
    if keep.dtype != invert.dtype:
        raise TypeError(
            f"signed_stgs: keep and invert must have one dtype, got {keep.dtype} and "
            f"{invert.dtype}"
        )
    check_temperature("signed_stgs", temperature)
    key = single_key("signed_stgs", key)
    wide = _wide(keep.dtype)
    noise = gumbel_noise(key, (3, *keep.shape)).astype(wide)
    return _choose(
        keep.astype(wide) + noise[0],
        noise[1],
        invert.astype(wide) + noise[2],
        jnp.asarray(temperature, wide),
    ).astype(keep.dtype)


def naive_gumbel_softmax(
    key: jax.Array,
    logits: jax.Array,
    shape: int | Sequence[int] | None = None,
    *,
    temperature: float | jax.Array = 1.0,
) -> jax.Array:
    """Samples like `stgs`, from log-probabilities; a reference for comparisons only.

    The two classes get the log-probabilities log(sigmoid) and log(1 - sigmoid) and
    separate Gumbel noise, all in the dtype of the logits. If the sigmoid rounds to 0 or
    1, a log-probability is minus infinity and the gradient is NaN.

    Args:
      key: one PRNG key, consumed by this call.
      logits: float array `[*batch]`; the keep-probability is `sigmoid(logits)`.
      shape: shape of the result; `[*batch]` must broadcast to it. Default: the shape
        of `logits`.
      temperature: scalar > 0, default 1; may be traced. Shapes the gradient, never the
        sample.

    Returns:
      `shape` in `logits.dtype`, each entry 0 or 1, or NaN if the computation fails.

    Raises:
      TypeError: `logits` is not floating point, or `key` is no PRNG key.
      ValueError: `temperature` is not a positive finite scalar, `logits` does not
        broadcast to `shape`, or `key` is an array of keys.

    Source: Jang et al. 2017, arXiv:1611.01144, with two classes; Dupont et al. 2022,
      section 2.2, compare it with their eq. (4).
    """
    logits = _broadcast("naive_gumbel_softmax", logits, shape)
    check_temperature("naive_gumbel_softmax", temperature)
    key = single_key("naive_gumbel_softmax", key)
    p = jax.nn.sigmoid(logits)
    pair = jnp.stack([jnp.log(p), jnp.log(1 - p)])
    noised = pair + jax.random.gumbel(key, pair.shape, pair.dtype)
    soft = jax.nn.softmax(noised / jnp.asarray(temperature, pair.dtype), axis=0)[0]
    hard = (jnp.argmax(noised, axis=0) == 0).astype(soft.dtype)
    return hard + (soft - jax.lax.stop_gradient(soft))


def logistic_noise(key: jax.Array, shape: int | Sequence[int]) -> jax.Array:
    """Samples standard logistic noise whose tails are correct to 2^-32.

    One random bit is the sign and 31 bits are the tail probability v in (0, 1/2], which
    gives `|noise| = log((1 - v) / v)`. Both tails are equally fine. The inverse of one
    float32 uniform in (0, 1) is coarse (2^-23) and not symmetric near 1.

    Args:
      key: one PRNG key, consumed by this call.
      shape: shape of the result.

    Returns:
      float32 `shape`, in (-22.9, 22.9).
    """
    key = single_key("logistic_noise", key)
    return _noise(threefry.bits(key, _as_shape("logistic_noise", shape)))


def gumbel_noise(key: jax.Array, shape: int | Sequence[int]) -> jax.Array:
    """Samples standard Gumbel noise whose upper tail is correct to 2^-32.

    The noise is -log(E) of an exponential E = -log(1 - v), where v in (0, 1) has 32
    random bits. Small E, the upper tail, are fine; large E are coarse, and the lower
    tail ends at a probability of 2^-24. Noise of the lower tail almost never makes a
    class the largest.

    Args:
      key: one PRNG key, consumed by this call.
      shape: shape of the result.

    Returns:
      float32 `shape`, in (-2.9, 22.9).
    """
    key = single_key("gumbel_noise", key)
    bits = threefry.bits(key, _as_shape("gumbel_noise", shape))
    v = (bits.astype(jnp.float32) + 0.5) * jnp.float32(2.0**-32)
    return -jnp.log(-jnp.log1p(-jnp.minimum(v, jnp.float32(1 - 2.0**-24))))


@jax.custom_jvp
def _choose(
    keep: jax.Array, drop: jax.Array, invert: jax.Array, temperature: jax.Array
) -> jax.Array:
    """Returns 1, 0 or -1 for the largest of the three noised logits, or NaN."""
    one, largest = jnp.ones_like(keep), jnp.maximum(keep, invert)
    sign = jnp.where(keep >= invert, one, -one)
    chosen = jnp.where(largest >= drop, sign, jnp.zeros_like(keep))
    return jnp.where(jnp.isnan(largest), largest, chosen)


@_choose.defjvp
def _choose_jvp(primals, tangents):
    *noised, temperature = primals
    *dots, temperature_dot = tangents
    top = functools.reduce(jnp.maximum, noised)
    # 0 for the largest, even if it is infinite.
    below = [
        jnp.where(each == top, jnp.zeros_like(top), (each - top) / temperature)
        for each in noised
    ]
    parts = [jnp.exp(each) for each in below]
    keep, drop, invert = (part / sum(parts) for part in parts)
    # Slopes of softmax(keep) - softmax(invert), from differences of logits alone.
    signed = keep - invert
    slopes = [keep * (1 - signed), -drop * signed, -invert * (1 + signed)]
    # Where a logit is plus infinity the choice is certain, even between two of them.
    certain = top == jnp.inf
    slopes = [jnp.where(certain, jnp.zeros_like(each), each) for each in slopes]
    # A logit of minus infinity has slope 0; 0 * inf would be NaN.
    pull = sum(
        slope * (dot - jnp.where(jnp.isinf(each), 0, each) * temperature_dot)
        for slope, dot, each in zip(slopes, dots, below, strict=True)
    )
    return _choose(*noised, temperature), pull / temperature


@jax.custom_jvp
def _keep(
    logits: jax.Array, bits: jax.Array, temperature: jax.Array | None
) -> jax.Array:
    """Returns 1 if logit + noise is positive, else 0; NaN for a NaN logit.

    A temperature of None means 1 and takes no logarithm for the gradient: 4.3 million
    logits inside a loop take 13 ms, and 18 ms with a temperature (jax 0.10, two cores).
    """
    against, in_favour = _odds(logits, bits)
    hard = (against < in_favour).astype(logits.dtype)
    return jnp.where(jnp.isnan(logits), logits, hard)


@_keep.defjvp
def _keep_jvp(primals, tangents):
    logits, bits, temperature = primals
    logits_dot, _, temperature_dot = tangents
    hard = _keep(logits, bits, temperature)
    # sigmoid'(soft) from one exp of a non-positive number, which cannot overflow and
    # stays precise although 1 - sigmoid(soft) would round to 0.
    if temperature is None:
        against, in_favour = _odds(logits, bits)
        slope = against * in_favour / jnp.square(against + in_favour)
        return hard, slope * logits_dot
    soft = (logits + _noise(bits).astype(logits.dtype)) / temperature
    decay = jnp.exp(-jnp.abs(soft))
    slope = decay / (jnp.square(1 + decay) * temperature)
    # A certain mask (infinite logit) has slope 0; 0 * inf would be NaN.
    pull = jnp.where(jnp.isinf(soft), 0, -soft)
    return hard, slope * (logits_dot + pull * temperature_dot)


def _odds(logits: jax.Array, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns two numbers in [0, 1], not both 0, of ratio exp(-(logit + noise))."""
    tail, above = _tail(bits)
    rare, common = tail.astype(logits.dtype), (1 - tail).astype(logits.dtype)
    decay = jnp.exp(-jnp.abs(logits))
    one, negative = jnp.ones_like(decay), logits < 0
    against = jnp.where(above, rare, common) * jnp.where(negative, one, decay)
    in_favour = jnp.where(above, common, rare) * jnp.where(negative, decay, one)
    return against, in_favour


def _tail(bits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns tail probability of the noise in (0, 1/2], and True if it is positive."""
    # 31 bits of magnitude, centred in their interval; float32 keeps small ones exact.
    tail = ((bits >> 1).astype(jnp.float32) + 0.5) * jnp.float32(2.0**-32)
    return tail, (bits & 1) == 1


def _noise(bits: jax.Array) -> jax.Array:
    tail, above = _tail(bits)
    magnitude = jnp.log((1 - tail) / tail)
    return jnp.where(above, magnitude, -magnitude)


def _broadcast(
    function: str, logits: jax.Array, shape: int | Sequence[int] | None
) -> jax.Array:
    logits = jnp.asarray(logits)
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(
            f"{function}: logits must be floating point, got {logits.dtype}"
        )
    shape = logits.shape if shape is None else _as_shape(function, shape)
    try:
        return jnp.broadcast_to(logits, shape)
    except ValueError:
        raise ValueError(
            f"{function}: logits of shape {logits.shape} do not broadcast to shape "
            f"{shape}"
        ) from None


def _as_shape(function: str, shape: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, int | np.integer):
        return (int(shape),)
    try:
        return tuple(shape)
    except TypeError:
        raise TypeError(f"{function}: shape must be integers, got {shape!r}") from None


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
