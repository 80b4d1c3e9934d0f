"""Trains one subnetwork, on CIFAR and other images; the same as `aslp-jax train`.

`run` in `aslp_jax/cli/train.py` is the program, and reads from top to bottom.
`aslp_jax/trainer/run_state.py` holds a run in memory, `aslp_jax/trainer/loop.py` its
epochs, and `aslp_jax/train.py` a training step.
"""

from aslp_jax.cli.errors import run_script

if __name__ == "__main__":
    run_script("train")
