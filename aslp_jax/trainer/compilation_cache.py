"""Compiled programs are kept on disk, so that the next run starts without compiling."""

import functools
import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import jax

from aslp_jax.data import datasets

_COMPILING = "/jax/core/compile/backend_compile_duration"
"""How JAX calls the event; reading a kept program counts too."""


def enable_compilation_cache() -> None:
    """Turns JAX's persistent compilation cache on, before anything is compiled.

    A folder that `JAX_COMPILATION_CACHE_DIR` names is used as it is, and
    `JAX_ENABLE_COMPILATION_CACHE=false` turns all of it off. Else it is a folder in the
    user's cache, one for each kind of processor: compiled code holds instructions that
    another may lack. Where none can be written, nothing is kept. Small programs are
    kept as well: together they are a tenth of a second run.
    """
    _clock()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            folder = datasets.default_cache() / "compiled" / _processor()
            # Whoever can write here can have their code run.
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (OSError, RuntimeError):
            return
        if not os.access(folder, os.W_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def compile_seconds() -> float:
    """Returns how long this process has compiled since `keep_compiled`, in seconds."""
    return sum(_clock())


@functools.cache
def _clock() -> list[float]:
    """Durations in seconds, of which JAX tells from the first call on."""
    spent: list[float] = []

    def account(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILING:
            spent.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(account)
    return spent


def _processor() -> str:
    """A name for the kind of processor: its instruction sets, as far as known."""
    told = {platform.machine(), platform.processor()}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not on this system
        lines = []
    kinds = ("model name", "flags", "Features", "CPU part")
    told |= {line for line in lines if line.startswith(kinds)}
    return hashlib.sha256("\n".join(sorted(told)).encode()).hexdigest()[:12]
