"""One run: options, presets, programs, state, loop, folder, progress, report, plots.

Internal: `aslp_jax.cli` is the way in. Importing this package imports no JAX.
"""
