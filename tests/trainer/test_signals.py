"""Signals: at once outside of training, noted in training, ignored where asked."""

import contextlib
import signal
import subprocess
import sys
import threading

import pytest

from aslp_jax.trainer.signals import STOPPING, Interrupted, Signals, interruptible

NAMES = {signal.SIGINT: "SIGINT", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    """Waits for no second signal, and checks that the handlers are put back.

    A shell that starts the tests in the background has SIGINT ignored.
    """

    def unexpected(number, frame):
        pytest.fail("the handler of before was called")

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    before = {number: signal.signal(number, unexpected) for number in STOPPING}
    yield
    after = [signal.signal(number, handler) for number, handler in before.items()]
    assert after == [unexpected] * 3


def test_all_signals_that_end_a_program_are_watched():
    assert set(STOPPING) == set(NAMES)


@pytest.mark.parametrize("number", NAMES)
def test_a_signal_interrupts_at_once(number):
    went_on: list[int] = []
    with pytest.raises(Interrupted, match=NAMES[number]) as stop, interruptible():
        signal.raise_signal(number)
        went_on.append(number)
    assert not went_on
    assert stop.value.number == number
    assert isinstance(stop.value, KeyboardInterrupt)  # `except Exception` lets it pass


@pytest.mark.parametrize("error", [ImportError, KeyboardInterrupt, SystemExit])
def test_a_signal_that_became_another_error_is_still_one(error):
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Interrupted:
            raise error("while an extension was loaded") from None
    with pytest.raises(error), interruptible():
        raise error("without a signal")


def test_a_signal_that_was_swallowed_is_raised_in_time():
    def swallow():
        with contextlib.suppress(Interrupted):  # as a destructor does
            signal.raise_signal(signal.SIGTERM)

    reached = []
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible():
        swallow()
        with Signals() as signals:
            assert signals.stop_requested
            reached.append("training")
            signals.check()
    with pytest.raises(Interrupted, match="SIGTERM"), interruptible():
        swallow()
        reached.append("end")
    assert reached == ["training", "end"]


@pytest.mark.parametrize("number", NAMES)
def test_a_signal_in_a_destructor_is_raised_a_moment_later(number, capfd):
    class Destroyed:
        def __del__(self):
            signal.raise_signal(number)

    lost = []
    with pytest.raises(Interrupted, match=NAMES[number]), interruptible():
        Destroyed()
        for _ in range(500):
            threading.Event().wait(0.01)
        lost.append(number)
    assert not lost
    assert capfd.readouterr() == ("", "")


def test_after_the_end_of_a_process_a_signal_changes_nothing():
    before = {number: signal.getsignal(number) for number in STOPPING}
    with interruptible(ends_process=True):
        pass
    for number, handler in before.items():
        signal.raise_signal(number)
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NAMES)
def test_training_notes_a_signal_and_goes_on(number):
    went_on = False
    with pytest.raises(Interrupted, match=NAMES[number]), interruptible():
        with Signals() as signals:
            assert not signals.stop_requested
            signal.raise_signal(number)
            assert signals.stop_requested
            # The next one kills.
            assert signal.getsignal(number) is signal.SIG_DFL
            went_on = True
        pytest.fail("a signal after the last check was lost")
    assert went_on


def test_what_was_saved_is_raised_once():
    with pytest.raises(Interrupted, match="SIGTERM"), Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signals.check()


@pytest.mark.parametrize("watch", [interruptible, Signals])
def test_what_nohup_ignores_stays_ignored(watch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with watch():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("watch", [interruptible, Signals])
def test_a_thread_gets_no_signals(watch):
    errors = []

    def enter():
        try:
            with watch():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert not errors


def test_the_clock_interrupts_too():
    with pytest.raises(Interrupted, match="the time limit") as stop:
        Signals(deadline=0.0).check()
    assert stop.value.number == 0


@pytest.mark.slow
def test_extension_modules_are_loaded_where_signals_are_noted(tmp_path):
    """NumPy, loaded by an extension module, prints a traceback when interrupted."""
    (tmp_path / "network.py").write_text("Net = None\n")
    code = (
        "import signal, sys\n"
        "from aslp_jax.cli.arguments import parse\n"
        "from aslp_jax.trainer.signals import Signals\n"
        "found = []\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'numpy':\n"
        "            found.append(signal.getsignal(signal.SIGINT))\n"
        "sys.meta_path.insert(0, Finder())\n"
        "line = '--dataset digits --model network.py:Net'\n"
        "try:\n"
        "    parse(line.split(), description='', prog='', epilog='').command()\n"
        "finally:\n"
        "    assert [each.__func__ for each in found] == [Signals._note]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert "AssertionError" not in done.stderr and "AttributeError" not in done.stderr
    assert done.returncode == 0, done.stderr
