"""Standard output and error that go away, or were never there."""

import io
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from aslp_jax.cli._display import Display
from aslp_jax.cli.errors import run
from aslp_jax.cli.main import main

ROOT = Path(__file__).parents[2]


class Pipe(io.StringIO):
    """A pipe that is closed after some characters."""

    room = 10

    def write(self, text: str) -> int:
        if self.tell() + len(text) > self.room:
            raise BrokenPipeError
        return super().write(text)


def test_what_nobody_reads_is_dropped():
    pipe = Pipe()
    display = Display(pipe)
    assert display.write("12345") == 5
    assert display.write("more than there is room for") == 27
    display.flush()
    assert pipe.getvalue() == "12345"
    assert display.getvalue() == "12345"  # all else is the stream's own


@pytest.mark.parametrize("error", [BrokenPipeError, OSError(5, "no terminal")])
def test_a_failed_flush_is_no_error(error, monkeypatch):
    def flush():
        raise error

    pipe = io.StringIO()
    monkeypatch.setattr(pipe, "flush", flush, raising=False)
    Display(pipe).flush()


def test_a_command_whose_output_is_closed_ends_with_its_own_code(
    signed, monkeypatch, capsys
):
    def write(text):
        raise BrokenPipeError

    with capsys.disabled():
        for stream in ("stdout", "stderr"):
            pipe = io.StringIO()
            monkeypatch.setattr(pipe, "write", write, raising=False)
            monkeypatch.setattr(sys, stream, pipe)
        assert main(["inspect", str(signed)]) == 0
        assert main(["inspect", "missing"]) == 2


def test_no_output_at_all(monkeypatch, signed):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        patch.setattr(sys, "stderr", None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            codes = main(["inspect", str(signed)]), main(["inspect", "missing"])
        assert (sys.stdout, sys.stderr) == (None, None)
    assert codes == (0, 2)


@pytest.mark.parametrize(
    ("encoding", "text", "shown"),
    [("ascii", "1 ± 2", b"1 ? 2"), ("utf-8", os.fsdecode(b"a\xffb"), b"a?b")],
)
def test_text_degrades_by_the_character(encoding, text, shown, monkeypatch):
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", out)

    def show(arguments):
        print(text, end="")
        return 0

    assert run(show, []) == 0
    assert raw.getvalue() == shown


def test_closed_descriptors_are_not_given_to_files(tmp_path):
    code = (
        "import sys\n"
        "from aslp_jax.cli.errors import run\n"
        "def main(arguments):\n"
        "    with open('data', 'w') as file:\n"
        "        print('an error', file=sys.stderr)\n"
        "        return file.fileno()\n"
        "raise SystemExit(run(main, []))\n"
    )
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -c "{code}" 0<&- 1>&- 2>&-'],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode > 2
    assert (tmp_path / "data").read_text() == ""
