"""Devices and micro-batches of a run."""

import time
from typing import Any

import jax

from aslp_jax._errors import BadInput
from aslp_jax.trainer.options import Config

_CPU_MICRO_BATCH = 64
"""Images a forward pass on a CPU: activations of 256 fall out of the cache (Conv2 at
256: 97 images/s whole, 235 in parts of 64, two cores)."""


def choose_devices(config: Config) -> list[jax.Device]:
    found = jax.devices()
    count = config.devices
    if count is None:
        numbers = range(len(found), 0, -1)
        return found[: next(n for n in numbers if config.batch_size % n == 0)]
    if count > len(found):
        kinds = ", ".join(str(device) for device in found)
        raise BadInput(f"--devices {count}: only {len(found)} here ({kinds})")
    if config.batch_size % count:
        raise BadInput(
            f"--batch-size {config.batch_size} is not divisible by the {count} devices"
        )
    return found[:count]


def choose_micro_batch(config: Config, devices: list[jax.Device]) -> int:
    """Examples a forward pass over all devices; `--micro-batch` counts one device's."""
    share = config.batch_size // len(devices)
    if config.micro_batch is not None:
        if share % config.micro_batch:
            raise BadInput(
                f"--micro-batch {config.micro_batch} does not divide the {share} "
                "images that each device gets of a batch"
            )
        return config.micro_batch * len(devices)
    if devices[0].platform != "cpu":
        return config.batch_size
    # A batch with no fitting divisor goes through whole, rather than in crumbs.
    fitting = range(_CPU_MICRO_BATCH, _CPU_MICRO_BATCH // 4, -1)
    size = next((size for size in fitting if share % size == 0), share)
    return size * len(devices)


def wait_for(value: Any) -> None:
    """Waits in Python, not in the runtime, so that a second Ctrl-C stops at once."""
    while not value.is_ready():
        time.sleep(0.002)
