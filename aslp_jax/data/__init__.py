"""Images and labels: named sets, their cache on disk, and augmentation.

Public: `aslp_jax.data.datasets` and `aslp_jax.data.augment`. Internal: every other
module of this package.
"""
