"""Compilation cache: compiled programs on disk, so that the next run starts sooner."""

import functools
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import jax

from aslp_jax.data import datasets

__all__ = ["compile_seconds", "enable_compilation_cache"]

_COMPILING = "/jax/core/compile/backend_compile_duration"
"""JAX's name for the event of compiling; reading a cached program counts too."""


def enable_compilation_cache() -> None:
    """Turns JAX's persistent compilation cache on, before anything is compiled.

    `JAX_COMPILATION_CACHE_DIR` names the folder, and
    `JAX_ENABLE_COMPILATION_CACHE=false` turns the cache off. By default the folder lies
    in the user's cache, one for each kind of processor: compiled code may hold
    instructions that another processor lacks. If no folder can be written, nothing is
    cached. Small programs are cached as well: together they take a tenth of the next
    run.
    """
    _clock()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            folder = datasets.default_cache() / "compiled" / _processor()
            str(folder).encode()  # JAX reads it as UTF-8
            # Whoever can write here can have their code run.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (OSError, RuntimeError, UnicodeEncodeError):
            return
        if not os.access(folder, os.W_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def compile_seconds() -> float:
    """Returns the time that this process has compiled, in seconds.

    Counted from the first call of `enable_compilation_cache` or of this function.
    """
    return sum(_clock())


@functools.cache
def _clock() -> list[float]:
    """Returns the list that durations of compiling are added to, in seconds."""
    spent: list[float] = []

    def account(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILING:
            spent.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(account)
    return spent


def _processor() -> str:
    """Returns a name for the kind of processor: a hash of its instruction sets."""
    known = {platform.machine(), platform.processor()}
    try:
        lines = (
            Path("/proc/cpuinfo")
            .read_text(encoding="utf-8", errors="replace")
            .splitlines()
        )
    except OSError:  # not on this system
        lines = []
    kinds = ("model name", "flags", "Features", "CPU part")
    known |= {line for line in lines if line.startswith(kinds)}
    return hashlib.sha256("\n".join(sorted(known)).encode()).hexdigest()[:12]
