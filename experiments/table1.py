"""Trains the grid of table 1: the command `aslp-jax table1`."""

from aslp_jax.cli import table1
from aslp_jax.cli.errors import run_script

if __name__ == "__main__":
    run_script(table1.main)
