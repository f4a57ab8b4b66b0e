"""Intervals against what can be worked out by hand, and how often they hold the truth."""

import numpy as np
import pytest

from jaxcrnn.experiments.bootstrap import difference, rate

LINES = 40


def same_for_every_line(rates):
    """Numerators and denominators of seeds that differ, each with lines that are alike."""
    return np.repeat(np.asarray(rates)[:, None], LINES, 1), np.ones((len(rates), LINES))


@pytest.mark.parametrize(("rates", "widened"), [((0.2, 0.5, 0.8), 1.5), ((0.4, 0.6), 2.0)])
def test_interval_over_seeds_only(rates, widened):
    """Drawn again, three seeds are all the lowest one in 1 of 27 cases, two in 1 of 4, more than the 2.5 % left out.

    Their bootstrap has (S - 1) / S of the variance of S seeds, so its ends are sqrt(S / (S - 1)) further away.
    """
    away = np.sqrt(widened) * (max(rates) - np.mean(rates))
    for interval in (
        rate(*same_for_every_line(rates)),
        difference(*same_for_every_line(rates), *same_for_every_line([0.0] * len(rates))),
    ):
        np.testing.assert_allclose(interval, (np.mean(rates), np.mean(rates) - away, np.mean(rates) + away), rtol=1e-12)


def test_interval_over_lines_only():
    """The standard error of a mean over lines, times 1.96 on both sides; one seed is never widened."""
    over = np.random.default_rng(0).random((1, 2000))
    error = over.std() / np.sqrt(2000)
    for seeds in (1, 3):  # alike, so that nothing comes from them
        interval = rate(np.repeat(over, seeds, 0), np.ones((seeds, 2000)), replicates=4000)
        assert interval.value == pytest.approx(over.mean())
        assert interval.high - interval.value == pytest.approx(1.96 * error, rel=0.06)
        assert interval.value - interval.low == pytest.approx(1.96 * error, rel=0.06)


def test_rate_is_pooled_over_lines():
    over, under = np.asarray([[1.0, 0.0, 3.0]]), np.asarray([[1.0, 1.0, 8.0]])
    assert rate(over, under).value == 0.4
    assert rate(over * 0, under * 0).value == 0  # nothing to read


def arms(rng, seeds, lines, gain, spread):
    """Two arms of the same lines; ``gain`` is what the first reads better, ``spread`` how far seeds differ."""
    hard = rng.normal(size=lines) * 0.25

    def arm(mean):
        probability = np.clip(mean + hard + rng.normal(size=(seeds, 1)) * spread, 0, 1)
        return (rng.random((seeds, lines)) < probability).astype(float)

    return arm(0.6 + gain), arm(0.6)


@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.0), (3, 0.02), (3, 0.05), (1, 0.0)])
def test_intervals_cover_the_true_value(seeds, spread):
    rng, gain, trials = np.random.default_rng(1), 0.04, 100
    covered, ones = 0, np.ones((seeds, 150))
    for trial in range(trials):
        one, two = arms(rng, seeds, 150, gain, spread)
        interval = difference(one, ones, two, ones, replicates=200, seed=trial)
        covered += interval.low <= gain <= interval.high
        assert interval.low <= interval.value <= interval.high
    # Clipping of probabilities takes some of the gain away, 0.002 at this difficulty.
    assert covered / trials > 0.9


def test_differences_are_paired_by_seed_and_line():
    rng = np.random.default_rng(2)
    two = (rng.random((4, 300)) < rng.random(300)).astype(float)  # lines differ far more than arms
    one = two.copy()
    one[:, :12] = 1
    ones = np.ones_like(two)
    paired = difference(one, ones, two, ones)
    assert paired.low > 0
    shuffled = difference(one[:, rng.permutation(300)], ones, two, ones)
    assert (shuffled.high - shuffled.low) > 2 * (paired.high - paired.low)
    # What all arms of a seed share is no difference.
    drift = np.asarray([[0.0], [3.0], [6.0], [9.0]])
    assert difference(one + drift, ones, two + drift, ones) == pytest.approx(paired)
    same = difference(two, ones, two, ones)
    assert same == (0, 0, 0)
