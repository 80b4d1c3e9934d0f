"""Trains the grid of table 1; the same program as `aslp-jax table1`.

`aslp_jax/cli/table1.py` reads the command line and chooses the cells, and
`aslp_jax/sweeps/sweep.py` trains them and writes the report.
"""

from aslp_jax.cli.errors import run_script

if __name__ == "__main__":
    run_script("table1")
