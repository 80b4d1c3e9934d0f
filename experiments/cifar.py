"""Trains one subnetwork: the command `aslp-jax train`."""

from aslp_jax.cli import train
from aslp_jax.cli.errors import run_script

if __name__ == "__main__":
    run_script(train.main)
