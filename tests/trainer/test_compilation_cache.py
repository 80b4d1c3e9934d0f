"""Where compiled programs are kept; test_program sees that they are."""

import os
import platform
import time
from pathlib import Path

import jax
import pytest

from aslp_jax.trainer import compilation_cache
from aslp_jax.trainer.compilation_cache import compile_seconds, enable_compilation_cache


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """JAX's cache as a user finds it, with an empty home; put back afterwards."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield lambda: jax.config.jax_compilation_cache_dir
    for name, value in before.items():
        jax.config.update(name, value)


def test_what_is_compiled_is_kept_in_the_users_cache(cache, tmp_path, monkeypatch):
    enable_compilation_cache()
    folder = Path(cache())
    assert folder.parent == tmp_path / "cache" / "aslp-jax" / "compiled"
    assert folder.stat().st_mode & 0o077 == 0
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0.0
    jax.config.update("jax_compilation_cache_dir", None)  # as the next run begins
    enable_compilation_cache()
    assert Path(cache()) == folder
    monkeypatch.setattr(platform, "machine", lambda: "another")
    enable_compilation_cache()
    assert Path(cache()).parent == folder.parent and Path(cache()) != folder


def test_the_kind_of_a_processor_is_what_it_can_do(monkeypatch):
    def named(text):
        monkeypatch.setattr(Path, "read_text", lambda *_, **how: text)
        return compilation_cache._processor()

    text = "model name : one\nflags : sse avx\ncpu MHz : 800\n"
    assert named(text) == named(text.replace("800", "900"))
    assert named(text) != named(text.replace(" avx", ""))


def test_a_system_may_say_nothing_of_its_processor(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation_cache, "Path", lambda _: tmp_path / "missing")
    assert len(compilation_cache._processor()) == 12


def test_a_folder_that_the_user_names_for_it_is_used(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    jax.config.update("jax_compilation_cache_dir", "mine")
    enable_compilation_cache()
    assert cache() == "mine" and list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_nothing_is_kept(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    enable_compilation_cache()
    assert cache() is None


def test_a_user_without_a_home_keeps_nothing(cache, monkeypatch):
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    enable_compilation_cache()
    assert cache() is None


def test_a_folder_that_is_another_users_is_not_used(cache, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    enable_compilation_cache()
    assert cache() is None


def test_compiling_is_timed(cache):
    enable_compilation_cache()
    enable_compilation_cache()  # and not twice
    before = compile_seconds()
    program = jax.jit(lambda x: (x * 2).sum() + 41)
    program.lower(1.0)
    assert compile_seconds() == before
    began = time.perf_counter()
    program(1.0)
    assert 0 < compile_seconds() - before <= time.perf_counter() - began
    before = compile_seconds()
    program(2.0)
    assert compile_seconds() == before
