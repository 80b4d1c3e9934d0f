"""Mean, standard deviation, and verdicts on claims."""

import pytest
import scipy.stats

from aslp_jax.sweeps import statistics


def by_seed(differences):
    return {seed: [difference] for seed, difference in enumerate(differences)}


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_the_quantile_is_that_of_students_t(confidence):
    for degrees in [*range(1, 40), 59, 124, 1000]:
        expected = scipy.stats.t.ppf((1 + confidence) / 2, degrees)
        found = statistics.t_quantile(degrees, confidence)
        assert found == pytest.approx(expected, rel=1e-10), degrees


@pytest.mark.parametrize(
    ("differences", "more", "at_least"),
    [
        # Half the width of the interval is 1.31 here.
        ([2.0, 1.0, 3.0, 1.5, 2.5], "holds", "holds"),
        # Three values: above two standard errors, but within the interval.
        ([1.0, 2.0, 3.6], "not decided", "not decided"),
        ([0.0, 2.0, 3.0, -1.0], "not decided", "not decided"),
        ([0.0, -2.0, -3.0, 1.0], "not decided", "not decided"),
        ([-1.0, -2.0, -3.0, -2.0], "does not hold", "does not hold"),
        # An interval that is one number.
        ([0.0, 0.0, 0.0, 0.0], "does not hold", "holds"),
        ([1.0, 1.0], "holds", "holds"),
        ([-1.0, -1.0], "does not hold", "does not hold"),
    ],
)
def test_a_claim_is_decided_by_the_interval(differences, more, at_least):
    assert statistics.verdict(by_seed(differences))[1] == more
    assert statistics.verdict(by_seed(differences), at_least=True)[1] == at_least


def test_the_interval_agrees_with_a_t_test():
    differences = [0.31, -0.12, 0.44, 0.05, 0.27]
    interval = scipy.stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    half = (interval.high - interval.low) / 2
    evidence, _ = statistics.verdict(by_seed(differences))
    assert evidence.startswith(f"+0.19 ± {half:.2f} points ")


def test_evidence_is_the_mean_its_interval_and_how_many_are_higher():
    evidence, _ = statistics.verdict(by_seed([1.0, 2.0, 3.0, 0.0]))
    assert evidence == (
        "+1.50 ± 2.05 points (95 % interval, 4 seeds, 4 pairs), higher in 3"
    )
    evidence, _ = statistics.equivalence(by_seed([0.1, -0.1]), 1, unit="epochs")
    assert evidence == (
        "+0.00 ± 1.27 epochs (95 % interval, 2 seeds, 2 pairs), -0.10 to +0.10"
    )


def test_the_pairs_of_a_seed_count_as_one():
    # 40 pairs that are clearly positive, of two seeds that differ.
    differences = {0: 20 * [1.0], 1: 20 * [3.0]}
    evidence, verdict = statistics.verdict(differences)
    assert evidence.startswith("+2.00 ± 12.71 points (95 % interval, 2 seeds, 40 pairs")
    assert verdict == "not decided"
    evidence, _ = statistics.equivalence({0: [1.0, 2.0, 3.0], 1: [0.0]}, 1)
    assert evidence.startswith("+1.00") and evidence.endswith("+0.00 to +3.00")


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.5, 0.5], "holds"),
        ([-0.5, -0.5], "holds"),
        ([0.0, 0.1, -0.1], "holds"),
        ([0.0, 0.6], "not decided"),
        ([0.0, -0.6], "not decided"),
        ([0.0, 1.2], "not decided"),
        ([9.0, 9.0], "does not hold"),
        ([-9.0, -9.1, -9.2], "does not hold"),
    ],
)
def test_what_should_not_change_is_bounded_on_both_sides(differences, verdict):
    assert statistics.equivalence(by_seed(differences), 0.5)[1] == verdict


@pytest.mark.parametrize(
    "test", [statistics.verdict, lambda d: statistics.equivalence(d, 1)]
)
def test_one_seed_decides_nothing(test):
    assert test({}) == ("no pairs of runs", "not measured")
    evidence = "+2.50 points (one seed, 2 pairs)"
    assert test({7: [3.0, 2.0]}) == (evidence, "not measured")
    assert test({7: [3.0]})[0] == "+3.00 points (one seed, 1 pair)"
