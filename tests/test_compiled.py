"""Where compiled programs are kept; test_program sees that they are."""

import platform
from pathlib import Path

import jax
import pytest
from compiled import keep_compiled


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """JAX's cache as a user finds it, with an empty home; put back afterwards."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield lambda: jax.config.jax_compilation_cache_dir
    for name, value in before.items():
        jax.config.update(name, value)


def test_what_is_compiled_is_kept_in_the_users_cache(cache, tmp_path, monkeypatch):
    keep_compiled()
    folder = Path(cache())
    assert folder.parent == tmp_path / "cache" / "aslp-jax" / "compiled"
    assert folder.stat().st_mode & 0o077 == 0
    keep_compiled()
    assert Path(cache()) == folder
    monkeypatch.setattr(platform, "machine", lambda: "another")
    keep_compiled()
    assert Path(cache()).parent == folder.parent and Path(cache()) != folder


def test_a_folder_that_the_user_names_for_it_is_used(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "mine")
    jax.config.update("jax_compilation_cache_dir", "mine")
    keep_compiled()
    assert cache() == "mine" and list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_nothing_is_kept(cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    keep_compiled()
    assert cache() is None
