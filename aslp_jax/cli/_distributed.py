"""One process of a run of several: it joins the others, and ends when one is lost.

JAX ends a process (SIGABRT, with a page of text) as soon as its coordinator misses
another process. No handler in that process can replace this by a line and an exit code
(jax 0.10: a callback in Python ends it too). So the process forks before JAX is
imported: the child trains, and the parent waits, passes signals on, and says how it
ended.
"""

import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import IO, Any

from aslp_jax._errors import BAD_INPUT, PROCESS_LOST, BadInput
from aslp_jax.cli import errors
from aslp_jax.cli._cluster import Cluster
from aslp_jax.trainer.signals import STOPPING, Signals

__all__ = ["supervised", "wait_for_loss"]

_HEARTBEAT_SECONDS = 30
"""Time without a sign of life after which a process counts as lost."""

_SHUTDOWN_SECONDS = 20
"""Longest time that a process waits at its end for the others to end too."""

_LOST = b"JAX distributed service detected fatal errors"
"""Words of JAX when it ends a process because another one is lost, or never came."""

_ANOTHER_ENDED = (
    "another process of this run ended, or is out of reach; what was saved is whole: "
    "start all processes again with --resume"
)

_JOINED = b"\xff"
"""Byte from the child to the parent when all processes have joined; no exit code."""


def supervised(cluster: Cluster, main: Callable[[], int]) -> int:
    """Runs a program in a child process that JAX may end.

    Args:
      cluster: processes of the run.
      main: function that returns an exit code, called when all processes have joined.

    Returns:
      The exit code of `main`, or that of a run that lost a process. If a signal ended
      the child, the same signal ends this process.
    """
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as native:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            ours.close()
            _run_child(cluster, main, theirs, native)
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
            errors.say(_ANOTHER_ENDED)
            return PROCESS_LOST
        errors.say(_not_joined(cluster))
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
        f"{cluster.join_seconds} s"
    )


def _join(cluster: Cluster) -> None:
    """Joins the other processes, before JAX starts its devices.

    Raises:
      BadInput: there is no coordinator, or not all processes join in time.
    """
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
        raise BadInput(
            "--distributed: no launcher that JAX knows says where the other processes "
            f"are ({error}); give --coordinator HOST:PORT, --processes and "
            "--process-index"
        ) from error
    except RuntimeError as error:
        first, *_ = str(error).splitlines()
        raise BadInput(f"{_not_joined(cluster)} ({first:.200})") from error


def wait_for_loss() -> None:
    """Waits until JAX ends this process, after a computation that failed.

    A computation fails at once when another process is lost; JAX says so later. Returns
    if JAX misses no process: then the failure has another cause.
    """
    time.sleep(_HEARTBEAT_SECONDS + 15)
