"""One process of a run of several: it joins the others, and ends when one is lost.

The first process reads the command line and tells the others what it asks for.

JAX ends a process (SIGABRT, with a page of text) as soon as its coordinator misses
another process. No handler in that process can replace this by a line and an exit code
(jax 0.10: a callback in Python ends it too). So the process forks before JAX is
imported: the child trains, and the parent waits, passes signals on, and says how it
ended. The file is long because each way to end must be told from all others.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from aslp_jax._address import split_address
from aslp_jax._errors import (
    BAD_INPUT,
    BUDGET_MISSED,
    LOSS_NOT_FINITE,
    PROCESS_LOST,
    BadInput,
)
from aslp_jax._version import __version__
from aslp_jax.cli import errors
from aslp_jax.cli._cluster import Cluster
from aslp_jax.cli.arguments import Command, Flags
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.run_folder import RunFolder
from aslp_jax.trainer.signals import STOPPING, Signals

__all__ = ["run_shared"]

_PAGE = "docs/scaling.md#bad-input"
"""Page of the site on these errors."""

_HEARTBEAT_SECONDS = 30
"""Time without a sign of life after which a process counts as lost."""

_SHUTDOWN_SECONDS = 20
"""Longest time that a process waits at its end for the others to end too."""

_LOST = b"JAX distributed service detected fatal errors"
"""Words of JAX when it ends a process because another one is lost, or never came."""

_ANOTHER_ENDED = (
    "another process of this run ended, or is out of reach; what was saved is whole: "
    "start all processes again with --resume --out FOLDER"
)

_JOINED = b"\xff"
"""Byte from the child to the parent when all processes have joined; no exit code."""


def run_shared(cluster: Cluster, flags: Flags, train: Callable[[Command], int]) -> int:
    """Trains in a child process that JAX may end.

    Args:
      cluster: processes of the run.
      flags: command line; that of the first process counts for all.
      train: function that trains and returns an exit code, called when all processes
        have joined.

    Returns:
      The exit code of `train`, or that of a run that lost a process. If a signal ended
      the child, the same signal ends this process.

    Raises:
      BadInput: this process cannot be forked.
    """
    if not hasattr(os, "fork"):
        raise BadInput(
            "--distributed: this system cannot fork a process",
            page=_PAGE,
        )
    if "jax" in sys.modules:
        raise BadInput(
            "--distributed: JAX is loaded in this process already; start the command "
            "as a program of its own",
            page=_PAGE,
        )
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as native:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            ours.close()
            _run_child(cluster, lambda: _run_joined(flags, train), theirs, native)
        theirs.close()
        with ours:
            return _wait(cluster, child, ours, native)


def _run_child(
    cluster: Cluster, main: Callable[[], int], parent: socket.socket, native: IO
) -> None:
    """Joins the other processes, runs the program, and ends the process."""
    # What libraries print past Python is kept for the parent, on both streams.
    for stream, name in ((1, "stdout"), (2, "stderr")):
        shown = os.dup(stream)
        os.dup2(native.fileno(), stream)
        text = open(shown, "w", buffering=1, encoding="utf-8", errors="replace")  # noqa: SIM115
        setattr(sys, name, text)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()

    def run(_: Sequence[str]) -> int:
        _join(cluster)
        parent.sendall(_JOINED)
        return main()

    code = errors.run(run, [], ends_process=True)
    parent.sendall(bytes([code]))
    jax: Any = sys.modules.get("jax")
    if jax is not None and jax.distributed.is_initialized():
        # Others that have not ended by then learn it from the coordinator.
        with contextlib.suppress(RuntimeError):
            jax.distributed.shutdown()
    os._exit(code)


def _end_with(parent: socket.socket) -> None:
    """Kills this process when its parent is gone."""
    parent.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _wait(cluster: Cluster, child: int, status: socket.socket, native: IO) -> int:
    """Waits for the child and returns the exit code."""

    def forward(number: int, frame: Any) -> None:
        os.kill(child, number)

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, forward)
    noted = first = status.recv(1)
    if first == _JOINED:
        noted = status.recv(1)
    _, ended = os.waitpid(child, 0)
    for number in STOPPING:
        if signal.getsignal(number) is forward:
            signal.signal(number, signal.SIG_IGN)  # too late
    if noted:
        return noted[0]
    native.seek(0)
    printed = native.read()
    if _LOST in printed:
        if first == _JOINED:
            errors.say(_ANOTHER_ENDED, page="docs/scaling.md#when-a-process-is-lost")
            return PROCESS_LOST
        errors.say(_not_joined(cluster), page=_PAGE)
        return BAD_INPUT
    sys.stderr.write(printed.decode(errors="replace"))
    sys.stderr.flush()
    if os.WIFEXITED(ended):
        return os.WEXITSTATUS(ended)
    signal.signal(os.WTERMSIG(ended), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(ended))
    return 128 + os.WTERMSIG(ended)


def _not_joined(cluster: Cluster) -> str:
    address = cluster.coordinator or "the coordinator"
    return (
        f"--distributed: the processes did not all join at {address} within "
        f"{cluster.join_seconds} s; start each with this address, the same number of "
        "processes and an index of its own"
    )


def _join(cluster: Cluster) -> None:
    """Joins the other processes, before JAX starts its devices.

    Raises:
      BadInput: there is no coordinator, or not all processes join in time.
    """
    if cluster.coordinator is not None and cluster.process_index == 0:
        _check_port(cluster.coordinator)
    with Signals():
        import jax

    try:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.processes,
            cluster.process_index,
            initialization_timeout=cluster.join_seconds,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except (ValueError, TypeError) as error:
        if not cluster.missing:
            raise BadInput(
                f"--distributed: JAX cannot join ({error})",
                page=_PAGE,
            ) from error
        raise BadInput(
            "--distributed: there is no launcher that JAX knows, such as Slurm, to say "
            f"where the other processes are; give {', '.join(cluster.missing)} (JAX: "
            f"{error})",
            page=_PAGE,
        ) from error
    except RuntimeError as error:
        first, *_ = str(error).splitlines()
        raise BadInput(f"{_not_joined(cluster)} ({first:.200})", page=_PAGE) from error


def _check_port(address: str) -> None:
    """Checks that this process can open the port of the coordinator.

    JAX would crash if it cannot (jax 0.10: a segmentation fault). It opens the port of
    all addresses of this machine, IPv6 among them.

    Raises:
      BadInput: the port is in use, or may not be opened.
    """
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    place = ("", split_address(address)[1])
    try:
        socket.create_server(place, family=family, dualstack_ipv6=both).close()
    except OSError as error:
        raise BadInput(
            f"--coordinator {address}: process 0 cannot open this port here "
            f"({error.strerror}); name a port that is free, and start only one process "
            "with --process-index 0",
            page=_PAGE,
        ) from error


def _run_joined(flags: Flags, train: Callable[[Command], int]) -> int:
    """Trains when all processes have joined."""
    with Signals():
        import jax

        from aslp_jax.trainer.processes import every_process, is_first, text_of_first

    versions = {"aslp-jax": __version__, "jax": jax.__version__}
    try:
        if is_first():
            try:
                command = flags.command()
                if command.resume:
                    command.folder.claim()
            except BadInput:
                text_of_first("null")
                raise
            text_of_first(_described(command, versions))
        else:
            told = _told(text_of_first(""), versions, flags.path or Path())
            if told is None:
                return BAD_INPUT  # the first process says why
            command = told
        code = train(command)
        if code in (0, LOSS_NOT_FINITE, BUDGET_MISSED):
            every_process([0])  # the first writes the closing files
        return code
    except jax.errors.JaxRuntimeError:
        # A computation fails at once when another process is lost, and JAX ends this
        # process later. If it misses no process, the failure has another cause.
        time.sleep(_HEARTBEAT_SECONDS + 15)
        raise


def _described(command: Command, versions: dict[str, str]) -> str:
    """Returns a command as the first process sends it to the others."""
    return json.dumps(
        {
            "versions": versions,
            "options": command.config.as_dict(),
            "resume": command.resume,
        }
    )


def _told(text: str, versions: dict[str, str], path: Path) -> Command | None:
    """Returns the command that the first process sent; None if it cannot go on.

    Args:
      text: text of `_described`, or `null`.
      versions: versions of this process.
      path: run folder of this process, which it does not use.

    Raises:
      BadInput: the first process has other versions.
    """
    found = json.loads(text)
    if found is None:
        return None
    for name, version in found["versions"].items():
        if version != versions[name]:
            raise BadInput(
                f"--distributed: process 0 has {name} {version}, this one "
                f"{versions[name]}; they must be the same",
                page=_PAGE,
            )
    config, folder = Config(**found["options"]), RunFolder(path)
    return Command(config, folder, resume=found["resume"], first=False)
