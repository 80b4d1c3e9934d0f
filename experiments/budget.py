"""Compares ways to a network of few weights; the same program as `aslp-jax budget`.

`aslp_jax/cli/budget.py` reads the command line and chooses the cells, and
`aslp_jax/sweeps/sweep.py` trains them and writes the report.
"""

from aslp_jax.cli.errors import run_script

if __name__ == "__main__":
    run_script("budget")
