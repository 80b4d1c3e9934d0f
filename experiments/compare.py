"""Sets one cell of several grids side by side; the same program as `aslp-jax compare`.

`aslp_jax/cli/compare.py` reads the command line, and `aslp_jax/sweeps/comparison.py`
compares the grids.
"""

from aslp_jax.cli.errors import run_script

if __name__ == "__main__":
    run_script("compare")
