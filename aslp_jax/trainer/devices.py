"""Devices and micro-batches of a run."""

import time
from typing import Any

import jax

from aslp_jax._errors import BadInput
from aslp_jax.trainer.options import Config

__all__ = ["choose_devices", "choose_micro_batch", "wait_for"]

_PAGE = "docs/scaling.md#one-machine"
"""Page of the site on these errors."""

_CPU_MICRO_BATCH = 64
"""Images a forward pass on a CPU.

The activations of 256 images do not fit the cache: Conv2 on two cores trains 97
images/s with 256 at once, 235 with 64.
"""


def choose_devices(config: Config) -> list[jax.Device]:
    """Returns the devices that share each batch, equally many of each process.

    Args:
      config: options; without `devices`, as many are chosen as divide the batch.

    Raises:
      BadInput: there are fewer devices than asked for, or the batch cannot be shared
        evenly.
    """
    processes, batch = jax.process_count(), config.batch_size
    shares = [jax.local_devices(process_index=each) for each in range(processes)]
    most = min(map(len, shares)) * processes
    if batch % processes:
        raise BadInput(
            f"--batch-size {batch} is not divisible by the {processes} processes",
            page=_PAGE,
        )
    count = config.devices
    if count is None:
        count = next(n for n in range(most, 0, -processes) if batch % n == 0)
    if count > most:
        kinds = ", ".join(str(device) for share in shares for device in share)
        equal = ", equally many of each process" if processes > 1 else ""
        raise BadInput(
            f"--devices {count}: only {most} here{equal} ({kinds})",
            page=_PAGE,
        )
    if batch % count:
        raise BadInput(
            f"--batch-size {batch} is not divisible by the {count} devices",
            page=_PAGE,
        )
    if count % processes:
        raise BadInput(
            f"--devices {count} is not divisible by the {processes} processes",
            page=_PAGE,
        )
    return [device for share in shares for device in share[: count // processes]]


def choose_micro_batch(config: Config, devices: list[jax.Device]) -> int:
    """Returns the number of images a forward pass, over all devices.

    Args:
      config: options; `micro_batch` counts the images of one device.
      devices: devices that share each batch.

    Raises:
      BadInput: the micro-batch does not divide the images of one device.
    """
    share = config.batch_size // len(devices)
    if config.micro_batch is not None:
        if share % config.micro_batch:
            raise BadInput(
                f"--micro-batch {config.micro_batch} does not divide the {share} "
                "images that each device gets of a batch",
                page=_PAGE,
            )
        return config.micro_batch * len(devices)
    if devices[0].platform != "cpu":
        return config.batch_size
    # A batch without a divisor near 64 is not split: tiny parts would be slower.
    fitting = range(_CPU_MICRO_BATCH, _CPU_MICRO_BATCH // 4, -1)
    size = next((size for size in fitting if share % size == 0), share)
    return size * len(devices)


def wait_for(value: Any) -> None:
    """Waits for an array in Python, so that a second Ctrl-C stops at once.

    Args:
      value: array that is being computed.
    """
    while not value.is_ready():
        time.sleep(0.002)
