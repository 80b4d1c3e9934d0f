"""Sets one cell of several grids side by side: `aslp-jax compare`."""

from aslp_jax.cli import compare
from aslp_jax.cli.errors import run_script

if __name__ == "__main__":
    run_script(compare.main)
