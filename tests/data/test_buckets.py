"""What a plan of batches promises beyond that every line is in it."""

import itertools

import numpy as np
import pytest

from jaxcrnn.data import buckets

WIDTHS = np.random.default_rng(0).integers(1, 300, 200)
EDGES = buckets.choose(WIDTHS, 4)


def test_lines_go_to_the_narrowest_fitting_bucket():
    assert buckets.bucket_of(np.asarray([1, 16, 17, 32, 33]), (16, 32, 48)).tolist() == [0, 0, 1, 1, 2]


def test_batches_of_all_buckets_are_interleaved():
    """Or training would see short lines first and long ones last, epoch after epoch."""
    order = [planned.bucket for planned in buckets.epoch(WIDTHS, EDGES, 5, seed=0, number=0)]
    assert set(order) == set(range(len(EDGES)))
    assert sum(a > b for a, b in itertools.pairwise(order)) > len(order) / 4


def test_batches_are_reshuffled_each_epoch():
    def pairs(number):
        plan = buckets.epoch(WIDTHS, EDGES, 5, seed=0, number=number)
        return {(a, b) for planned in plan for a in planned.items for b in planned.items if a < b}

    one, two = pairs(0), pairs(1)
    assert len(one & two) < 0.3 * len(one)


def test_incomplete_batches_move_to_wider_buckets():
    widths = np.asarray([10] * 5 + [30] * 4)
    plan = buckets.epoch(widths, (16, 32, 48), 3, seed=0, number=0)
    assert sorted((planned.bucket, len(planned.items)) for planned in plan) == [(0, 3), (1, 3), (1, 3)]
    short = [
        planned for planned in buckets.epoch(widths[:5], (16, 32, 48), 3, seed=0, number=0) if len(planned.items) < 3
    ]
    assert [planned.bucket for planned in short] == [0]


def test_label_slots_fit_labels_of_narrower_lines():
    """Lines move up, so a bucket may get the longest label of any that is narrower."""
    widths, lengths = np.asarray([10, 30, 40]), np.asarray([7, 2, 3])
    assert buckets.label_slots(widths, lengths, (16, 32, 48)) == (7, 7, 7)
    assert buckets.label_slots(widths, lengths[::-1], (16, 32, 48)) == (3, 3, 7)
    assert buckets.label_slots(widths, 0 * lengths, (16, 32, 48)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("weights", "count", "parts"),
    [([1, 2, 4], 9, [1, 3, 5]), ([1, 2], 4, [1, 3]), ([0.5, 0.25, 0.25], 8, [4, 2, 2]), ([1, 1, 1], 4, [2, 1, 1])],
)
def test_shares_are_rounded_to_integers(weights, count, parts):
    assert buckets.shares(weights, count) == parts
