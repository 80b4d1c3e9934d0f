"""Flags of a run of several processes."""

import argparse
import dataclasses
from typing import Any

from aslp_jax._address import split_address
from aslp_jax._errors import BadInput
from aslp_jax.trainer.options import flag

__all__ = ["Cluster", "add_flags", "pop"]

_PAGE = "docs/scaling.md#several-machines"
"""Page of the site on these errors."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Processes of a run of several; None is left to JAX, which asks the launcher.

    Attributes:
      coordinator: address `HOST:PORT` of process 0.
      processes: number of processes.
      process_index: number of this process, from 0.
      join_seconds: longest time to wait for all processes, in seconds.
    """

    coordinator: str | None
    processes: int | None
    process_index: int | None
    join_seconds: int

    @property
    def missing(self) -> list[str]:
        """Flags that were not given, as a person would type them."""
        values = {
            "--coordinator HOST:PORT": self.coordinator,
            "--processes N": self.processes,
            "--process-index N": self.process_index,
        }
        return [text for text, value in values.items() if value is None]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a run of several processes.

    Args:
      parser: parser that leaves out flags that are not given.
    """
    group = parser.add_argument_group(
        "several processes", "the same command, once in each process"
    )
    group.add_argument(
        "--distributed",
        action="store_true",
        help="share the run with other processes; under Slurm, Open MPI, Kubernetes "
        "and on TPU pods the next three flags need not be given",
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="address of process 0, with a port that is free there; an IPv6 address "
        "stands in brackets",
    )
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument(
        "--process-index", type=int, metavar="N", help="number of this one, from 0"
    )
    group.add_argument(
        "--join-seconds",
        type=int,
        metavar="N",
        help="longest time to wait for the other processes at the start, in seconds "
        "(default: 300)",
    )


def pop(values: dict[str, Any]) -> Cluster | None:
    """Takes these flags out of the values of a command line, and checks them.

    Args:
      values: values of the flags that were given, by name; changed.

    Returns:
      The processes; None for a run of one.

    Raises:
      BadInput: a flag needs `--distributed`, or a value cannot be.
    """
    names = ("coordinator", "processes", "process_index", "join_seconds")
    distributed = values.pop("distributed", False)
    given = {name: values.pop(name, None) for name in names}
    for name, value in given.items():
        if value is not None and not distributed:
            raise BadInput(
                f"{flag(name)} needs --distributed",
                page=_PAGE,
            )
    if not distributed:
        return None
    address, processes, index = (given[name] for name in names[:3])
    if address is not None:
        _check_address(address)
    for name, least in (("processes", 1), ("process_index", 0), ("join_seconds", 1)):
        value = given[name]
        if value is not None and not least <= value < 2**31:
            raise BadInput(
                f"{flag(name)} must be from {least} to {2**31 - 1}, got {value}",
                page=_PAGE,
            )
    if None not in (processes, index) and index >= processes:
        raise BadInput(
            f"--process-index must be below --processes {processes}, got {index}",
            page=_PAGE,
        )
    return Cluster(address, processes, index, given["join_seconds"] or 300)


def _check_address(address: str) -> None:
    try:
        split_address(address)
    except ValueError as error:
        raise BadInput(f"--coordinator {address} {error}", page=_PAGE) from error
