"""Compares ways to few weights: the command `aslp-jax budget`."""

from aslp_jax.cli import budget
from aslp_jax.cli.errors import run_script

if __name__ == "__main__":
    run_script(budget.main)
