"""CTC and greedy decoding against brute force over all paths, against torch, and at the edges."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcrnn import ctc, decode
from jaxcrnn.decoding import single_swaps as swaps_in_numpy

# Un-jitted, each of the hundreds of operations compiles by itself.
ctc_loss = jax.jit(ctc.ctc_loss, static_argnames="blank")
slot_posteriors = jax.jit(ctc.slot_posteriors, static_argnames="blank")
best_path = jax.jit(ctc.best_path, static_argnames="blank")
greedy = jax.jit(decode.greedy, static_argnames="blank")


def collapse(path, blank):
    return tuple(c for c, _ in itertools.groupby(path) if c != blank)


def brute_force(logits, label, blank):
    """-log of the summed probability of every path that collapses to the label."""
    probabilities = np.exp(logits - np.logaddexp.reduce(logits, -1, keepdims=True))
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        if collapse(path, blank) == tuple(label):
            total += math.prod(probabilities[t, c] for t, c in enumerate(path))
    return -math.log(total) if total else None


def batch_of(seed, frames, classes, labels):
    logits = np.random.default_rng(seed).normal(size=(len(labels), frames, classes)).astype(np.float32) * 2
    slots = max(map(len, labels)) + 1
    padded = np.full((len(labels), slots), classes - 1, np.int32)
    for row, label in zip(padded, labels, strict=True):
        row[: len(label)] = label
    return logits, padded, np.asarray([len(label) for label in labels], np.int32)


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("frames", [1, 2, 4, 6])
def test_loss_matches_enumeration_of_all_paths(frames, blank):
    characters = [c for c in range(4) if c != blank]
    labels = [list(p) for n in range(4) for p in itertools.product(characters[:2], repeat=n)]
    logits, padded, label_lengths = batch_of(frames, 6, 4, labels)
    lengths = np.full(len(labels), frames, np.int32)
    losses = ctc_loss(logits, lengths, padded, label_lengths, blank=blank)
    feasible = ctc.is_feasible(lengths, padded, label_lengths)
    for i, label in enumerate(labels):
        expected = brute_force(logits[i, :frames].astype(np.float64), label, blank)
        assert feasible[i] == (expected is not None)
        np.testing.assert_allclose(losses[i], expected or 0.0, rtol=1e-5, atol=1e-5)


@pytest.mark.torch
def test_loss_and_gradient_match_torch():
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    labels = [[1, 2, 3], [4, 4], [], [2, 2, 2, 2], [1, 2, 1, 2, 1]]
    logits, padded, label_lengths = batch_of(0, 12, 6, labels)
    lengths = np.asarray([12, 5, 3, 6, 9], np.int32)  # the fourth needs seven frames

    def total(x):
        return ctc_loss(x, lengths, padded, label_lengths).sum()

    theirs = torch.tensor(logits, requires_grad=True)
    losses = torch.nn.functional.ctc_loss(
        theirs.log_softmax(-1).transpose(0, 1),
        torch.tensor(padded),
        torch.tensor(lengths),
        torch.tensor(label_lengths),
        reduction="none",
        zero_infinity=True,
    )
    losses.sum().backward()
    ours = ctc_loss(logits, lengths, padded, label_lengths)
    np.testing.assert_allclose(ours, losses.detach().numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(logits), theirs.grad.numpy(), rtol=1e-4, atol=1e-5)


def plain(logits, *labels):
    return ctc.ctc_loss(logits, *labels)


def fused(logits, *labels):
    classes = logits.shape[2]
    return ctc.fused_ctc_loss(jnp.exp(logits), jnp.eye(classes), jnp.zeros(classes), *labels)


@pytest.mark.parametrize("loss", [plain, fused])
def test_empty_batch_and_empty_labels(loss):
    logits, _, _ = batch_of(0, 5, 4, [()] * 3)
    lengths, none = np.asarray([5, 2, 0], np.int32), np.zeros(3, np.int32)
    both = jax.jit(jax.value_and_grad(lambda x, *k: (loss(x, *k).sum(), loss(x, *k)), has_aux=True))
    (_, empty), gradient = both(logits, lengths, np.zeros((3, 0), np.int32), none)
    (_, expected), same = both(logits, lengths, np.ones((3, 2), np.int32), none)
    np.testing.assert_array_equal(empty, expected)
    np.testing.assert_array_equal(gradient, same)
    assert empty[0] > 0
    assert both(logits[:0], lengths[:0], np.ones((0, 2), np.int32), none[:0])[1].shape == (0, 5, 4)


def test_impossible_labels_have_zero_loss_and_gradient():
    """A class that is never read, and a line of nothing but NaN that could not spell its label anyway: as torch."""
    logits, labels, sizes = batch_of(0, 6, 5, [(1, 2), (3, 3, 3, 3), (1, 4)])
    logits[0, :, 2] = -np.inf
    targets = np.full(3, 6, np.int32), labels, sizes
    both = jax.jit(
        jax.value_and_grad(lambda x: (ctc.ctc_loss(x, *targets).sum(), ctc.ctc_loss(x, *targets)), has_aux=True)
    )
    with_nan = logits.copy()
    with_nan[1] = np.nan
    for values in (logits, with_nan):
        (_, losses), gradient = both(values)
        assert losses[:2].tolist() == [0, 0]
        assert not gradient[:2].any()
        assert losses[2] > 0
        assert np.isfinite(gradient[2]).all()
    torch = pytest.importorskip("torch", reason="the torch extra is not installed")
    log_p = torch.tensor(np.array(logits)).log_softmax(2).transpose(0, 1)
    theirs = torch.nn.functional.ctc_loss(
        log_p, torch.tensor(labels), torch.tensor(targets[0]), torch.tensor(sizes), reduction="none", zero_infinity=True
    )
    np.testing.assert_allclose(both(logits)[0][1], theirs, rtol=1e-5)


def test_float32_is_accurate_at_large_losses():
    """A loss of some hundred nats is rounded to 3e-5; the gradient is not: paths are compared frame by frame."""
    labels = [[1, 2, 3, 3, 4], [5, 6, 7, 8, 9]]
    logits, padded, label_lengths = batch_of(3, 80, 1000, labels)
    lengths = np.asarray([80, 71], np.int32)
    total = jax.jit(jax.value_and_grad(lambda x: ctc_loss(x, lengths, padded, label_lengths).sum()))
    loss, gradient = total(logits / 20)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        expected, exact = map(np.asarray, total((logits / 20).astype(np.float64)))
    assert expected > 900
    np.testing.assert_allclose(loss, expected, rtol=3e-7)
    np.testing.assert_allclose(gradient, exact, atol=4e-6)


def test_padding_does_not_affect_results():
    labels = [[1, 2], [3], []]
    logits, padded, label_lengths = batch_of(1, 8, 5, labels)
    lengths = np.asarray([8, 4, 2], np.int32)

    def loss(x, slots):
        return ctc_loss(x, lengths, slots, label_lengths)

    before, gradient = loss(logits, padded), jax.jit(jax.grad(lambda x: loss(x, padded).sum()))(logits)
    noisy = logits.copy()
    for b, n in enumerate(lengths):
        noisy[b, n:] = 1e4
        padded[b, label_lengths[b] :] = 1
        assert (gradient[b, n:] == 0).all()
    np.testing.assert_array_equal(loss(noisy, padded), before)


@pytest.mark.parametrize("scale", [1e2, 1e4])
def test_extreme_logits_stay_finite(scale):
    labels = [[1, 2], [1, 1, 1, 1, 1], []]
    logits, padded, label_lengths = batch_of(2, 6, 4, labels)
    lengths = np.asarray([6, 6, 0], np.int32)
    total = jax.jit(jax.value_and_grad(lambda x: ctc_loss(x, lengths, padded, label_lengths).sum()))
    losses, gradient = total(logits * scale)
    assert jnp.isfinite(losses)
    assert jnp.isfinite(gradient).all()
    assert (gradient[1] == 0).all()  # infeasible
    each = ctc_loss(logits * scale, lengths, padded, label_lengths)
    assert (each >= 0).all()


@pytest.mark.parametrize("blank", [0, 2])
def test_greedy_collapses_every_path(blank):
    paths = np.asarray(list(itertools.product(range(3), repeat=5)), np.int32)
    lengths = np.random.default_rng(0).integers(0, 6, len(paths)).astype(np.int32)
    ids, counts = greedy(jax.nn.one_hot(paths, 3), lengths, blank=blank)
    for row, n, path, length in zip(ids, counts, paths, lengths, strict=True):
        assert tuple(row[:n].tolist()) == collapse(path[:length].tolist(), blank)
        assert (row[n:] == 0).all()


def test_confidence_averages_the_best_frame_of_each_character():
    probabilities = np.asarray(
        [[[0.1, 0.8, 0.1], [0.2, 0.6, 0.2], [0.7, 0.2, 0.1], [0.3, 0.1, 0.6]], [[0.9, 0.05, 0.05]] * 4], np.float32
    )
    reading = decode.read(np.log(probabilities), np.asarray([4, 3], np.int32))
    assert reading.counts.tolist() == [2, 0]
    np.testing.assert_allclose(reading.confidence, [(0.8 + 0.6) / 2, 0.9], rtol=1e-6)


def test_blankness_averages_the_blank_over_valid_frames():
    logits = np.log(np.asarray([[[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.9, 0.1, 0.0]]] * 3, np.float32) + 1e-9)
    lengths = np.asarray([3, 2, 0], np.int32)
    np.testing.assert_allclose(decode.blankness(logits, lengths), [0.5, 0.3, 0], rtol=1e-5)
    np.testing.assert_allclose(decode.blankness(logits, lengths, blank=2), [0.3, 0.45, 0], rtol=1e-5)


def test_exact_compares_ids_with_labels():
    ids = np.asarray([[1, 2, 0], [1, 2, 0], [1, 0, 0], [0, 0, 0]], np.int32)
    counts = np.asarray([2, 2, 1, 0], np.int32)
    labels = np.asarray([[1, 2, 9, 9], [1, 3, 9, 9], [1, 2, 9, 9], [9, 9, 9, 9]], np.int32)
    right = decode.exact(ids, counts, labels, np.asarray([2, 2, 2, 0], np.int32))
    assert right.tolist() == [True, False, False, True]


def slots_of(path, blank):
    """The label slot each frame of a path shows, -1 for the blank."""
    slots, slot, before = [], -1, blank
    for c in path:
        slot += c != blank and c != before
        slots.append(slot if c != blank else -1)
        before = c
    return slots


@pytest.mark.parametrize("blank", [0, 3])
@pytest.mark.parametrize("frames", [1, 3, 6])
def test_posteriors_and_best_path_match_enumeration(frames, blank):
    characters = [c for c in range(4) if c != blank]
    labels = [list(p) for n in range(4) for p in itertools.product(characters[:2], repeat=n)]
    logits, padded, label_lengths = batch_of(frames, 6, 4, labels)
    lengths = np.full(len(labels), frames, np.int32)
    posteriors = slot_posteriors(logits, lengths, padded, label_lengths, blank=blank)
    best = best_path(logits, lengths, padded, label_lengths, blank=blank)
    for i, label in enumerate(labels):
        probabilities = np.exp(logits[i] - np.logaddexp.reduce(logits[i], -1, keepdims=True))
        expected, total, top = np.zeros(posteriors.shape[1:]), 0.0, (0.0, [-1] * frames)
        for path in itertools.product(range(4), repeat=frames):
            if collapse(path, blank) != tuple(label):
                continue
            p, slots = math.prod(probabilities[t, c] for t, c in enumerate(path)), slots_of(path, blank)
            total += p
            top = max(top, (p, slots))
            for t, slot in enumerate(slots):
                if slot >= 0:
                    expected[t, slot] += p
        np.testing.assert_allclose(posteriors[i], expected / (total or 1), atol=1e-5)
        assert best[i].tolist() == top[1] + [-1] * (6 - frames)


def lines_with_candidates(seed, frames, slots, number, classes, blank=0):
    """Three lines with repeats, padding and labels that do not fit; candidates equal to neighbours, and padding."""
    rng = np.random.default_rng(seed)
    characters = np.asarray([c for c in range(classes) if c != blank])
    logits = (rng.normal(size=(3, frames, classes)) * 3).astype(np.float32)
    labels, candidates = rng.choice(characters, (3, slots)), rng.choice(characters, (3, slots, number))
    labels[:2, -1] = labels[:2, -2]
    labels[2] = labels[2, 0]
    candidates[:, 1:, 0], candidates[:, :-1, 1] = labels[:, :-1], labels[:, 1:]
    candidates[:, :, -1] = labels
    candidates[0, 0] = np.resize([blank, -1, classes], number)
    lengths = np.asarray([frames, frames - 1, slots])  # the last label, of repeats, does not fit
    return logits, lengths, labels, np.asarray([slots, slots - 1, slots]), candidates


def swaps_one_by_one(logits, lengths, labels, label_lengths, candidates, blank=0):
    """`ctc.single_swaps` by a loss for each swap."""
    own, spelled = ctc_loss(logits, lengths, labels, label_lengths, blank=blank), np.asarray([True, True, False])
    expected = np.full(candidates.shape, -np.inf)
    for slot, k in np.ndindex(*candidates.shape[1:]):
        swapped = candidates[:, slot, k]
        exists = spelled & (slot < label_lengths) & (swapped >= 0) & (swapped < logits.shape[2]) & (swapped != blank)
        texts = labels.copy()
        texts[exists, slot] = swapped[exists]
        exists &= np.asarray(ctc.is_feasible(lengths, texts, label_lengths))
        loss = ctc_loss(logits, lengths, texts, label_lengths, blank=blank)
        expected[exists, slot, k] = (own - loss)[exists]
    return expected


@pytest.mark.parametrize("blank", [0, 5])
def test_single_swaps_match_a_loss_for_each_swap(blank):
    """Repeats that a swap makes or breaks, texts that need more frames, padding, and ids that are no candidates."""
    lines = lines_with_candidates(blank, 7, 5, 4, 6, blank)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        logits, *labels = lines[0].astype(np.float64), *lines[1:]
        found = jax.jit(ctc.single_swaps, static_argnames="blank")(logits, *labels, blank=blank)
        expected = swaps_one_by_one(logits, *labels, blank=blank)
    assert (np.isneginf(found) == np.isneginf(expected)).all()
    assert np.isfinite(expected[:2]).mean() > 0.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_single_swaps_are_exact_in_float32():
    """128 frames, 40 characters, 8 candidates each, against float64; and the derivative against that of losses."""
    logits, *labels = lines_with_candidates(3, 128, 40, 8, 60)
    found = jax.jit(ctc.single_swaps)(logits, *labels)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        expected = np.asarray(jax.jit(ctc.single_swaps)(logits.astype(np.float64), *labels))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    lengths, texts, sizes, candidates = labels
    swapped = texts.copy()
    swapped[:, 7] = candidates[:, 7, 2]

    def both(logits):
        two = [ctc.ctc_loss(logits, lengths, text, sizes)[:2].sum() for text in (texts, swapped)]
        return ctc.single_swaps(logits, *labels)[:2, 7, 2].sum(), two[0] - two[1]

    ours, theirs = (jax.jit(jax.grad(lambda x, k=k: both(x)[k]))(logits) for k in range(2))
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-4)


@pytest.mark.parametrize("frames", [1, 4, 11, 40])
def test_single_swaps_in_numpy_are_the_same(frames):
    """With texts that just fit, and swaps that then do not."""
    rng = np.random.default_rng(frames)
    size = (frames + 1) // 2
    logits = rng.normal(size=(frames, 6)).astype(np.float32) * 3
    label, candidates = rng.integers(1, 6, size), np.tile(np.arange(1, 6), (size, 1))
    expected = ctc.single_swaps(logits[None], np.array([frames]), label[None], np.array([size]), candidates[None])[0]
    found = swaps_in_numpy.single_swaps(logits, label, candidates)
    assert (np.isneginf(found) == np.isneginf(expected)).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_recorded_outputs_of_a_handwriting_recogniser(shared):
    """Outputs of a handwriting recogniser, 79 characters and the blank last (``ctc_matrices`` of the shared data)."""
    folder = shared / "data" / "ctc_matrices"
    letters = "".join(chr(c + i) for c in (65, 97) for i in range(26))
    characters = " " + "!\"#&'()*+,-./0123456789:;?" + letters

    def read(name):
        return np.asarray([[float(v) for v in row.split(";")[:-1]] for row in (folder / name).read_text().splitlines()])

    def reading(matrix):
        ids, counts = greedy(jnp.asarray(matrix)[None], jnp.asarray([len(matrix)]), blank=79)
        return "".join(characters[i] for i in ids[0, : counts[0]])

    line, word = read("line.csv"), read("word.csv")
    assert len(characters) == 79
    assert reading(word) == "aircrapt"
    assert reading(line) == "the fak friend of the fomly hae tC"
    text = "the fake friend of the family, like the"
    labels = np.asarray([[characters.index(c) for c in text]], np.int32)
    targets = (np.asarray([100], np.int32), labels, np.asarray([len(text)], np.int32))
    single = ctc_loss(jnp.asarray(line[None], jnp.float32), *targets, blank=79)
    np.testing.assert_allclose(single, 28.090721774903226, rtol=1e-6)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        double = ctc_loss(jnp.asarray(line[None]), *targets, blank=79)
    np.testing.assert_allclose(double, 28.090721774903226, rtol=1e-13)
