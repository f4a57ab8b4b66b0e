"""Intervals against what can be worked out by hand."""

import numpy as np
import pytest

from jaxcrnn.experiments.bootstrap import difference, rate

LINES = 40


def same_for_every_line(rates):
    """Numerators and denominators of seeds that differ, each with lines that are alike."""
    return np.repeat(np.asarray(rates)[:, None], LINES, 1), np.ones((len(rates), LINES))


@pytest.mark.parametrize(("rates", "widened"), [((0.2, 0.5, 0.8), 1.5), ((0.4, 0.6), 2.0)])
def test_seeds_alone(rates, widened):
    """Drawn again, three seeds are all the lowest one in 1 of 27 cases, two in 1 of 4, more than the 2.5 % left out.

    Their bootstrap has (S - 1) / S of the variance of S seeds, so its ends are sqrt(S / (S - 1)) further away.
    """
    away = np.sqrt(widened) * (max(rates) - np.mean(rates))
    for found in (
        rate(*same_for_every_line(rates)),
        difference(*same_for_every_line(rates), *same_for_every_line([0.0] * len(rates))),
    ):
        np.testing.assert_allclose(found, (np.mean(rates), np.mean(rates) - away, np.mean(rates) + away), rtol=1e-12)


def test_lines_alone():
    """The standard error of a mean over lines, times 1.96 on both sides; one seed is never widened."""
    over = np.random.default_rng(0).random((1, 2000))
    error = over.std() / np.sqrt(2000)
    for seeds in (1, 3):  # alike, so that nothing comes from them
        found = rate(np.repeat(over, seeds, 0), np.ones((seeds, 2000)), replicates=4000)
        assert found.value == pytest.approx(over.mean())
        assert found.high - found.value == pytest.approx(1.96 * error, rel=0.06)
        assert found.value - found.low == pytest.approx(1.96 * error, rel=0.06)


def test_a_rate_is_of_all_lines_and_not_the_mean_of_theirs():
    over, under = np.asarray([[1.0, 0.0, 3.0]]), np.asarray([[1.0, 1.0, 8.0]])
    assert rate(over, under).value == 0.4
    assert rate(over * 0, under * 0).value == 0  # nothing to read


def test_arms_are_paired_by_line_and_by_seed():
    """A difference that every line and seed has alike is certain, however much these differ among each other."""
    rng = np.random.default_rng(0)
    over, under = rng.random((3, LINES)) + rng.random((3, 1)), np.ones((3, LINES))
    found = difference(over + 0.25, under, over, under)
    np.testing.assert_allclose(found, (0.25, 0.25, 0.25), rtol=1e-9)
    alone = rate(over, under)
    assert alone.high - alone.low > 0.2
