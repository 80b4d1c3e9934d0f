"""Images and labels: named sets, one's own, their cache on disk, and augmentation.

Public: `aslp_jax.data.datasets`, `aslp_jax.data.own`, `aslp_jax.data.prepared` and
`aslp_jax.data.augment`.
Internal: every other module of this package.
"""
