"""Many runs: grid, runner, statistics, comparisons, and the two tables.

Internal: `aslp_jax.cli` is the way in.
"""
