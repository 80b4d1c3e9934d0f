"""Timing: sides alternate, and claims know their bounds."""

import functools
import time

import pytest

from benchmarks import timing


def test_sides_alternate_and_their_first_calls_do_not_count():
    calls = []
    sides = {name: functools.partial(calls.append, name) for name in "ab"}
    seconds = timing.interleave_all(sides, 3)
    assert calls == 4 * ["a", "b"]
    assert [len(each) for each in seconds.values()] == [3, 3]
    assert 0 < timing.interleave({"a": lambda: time.sleep(0.01)}, 1)["a"] - 0.01 < 1


@pytest.mark.parametrize(
    "value, bound, least, met",
    [
        (1.2, 1.3, False, True),
        (1.4, 1.3, False, False),
        (1.4, 1.3, True, True),
        (1.2, 1.3, True, False),
        (1.3, 1.3, True, True),
        (1.3, 1.3, False, True),
        (float("nan"), 1.3, False, False),
        (float("nan"), 1.3, True, False),
    ],
)
def test_a_claim_is_met_on_the_right_side_of_its_bound(value, bound, least, met):
    claim = timing.Claim("epoch", value, bound, least=least)
    assert claim.met is met
    side = "at least" if least else "at most"
    verdict = "met" if met else "NOT MET"
    assert str(claim) == f"epoch: {value:.2f} times ({side} 1.3: {verdict})"
