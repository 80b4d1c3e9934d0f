"""Operations that XLA runs slowly on a CPU, rewritten: convolutions, random bits.

Public: `aslp_jax.ops.convolution`. Internal: every other module of this package.
"""
