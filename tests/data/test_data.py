"""Label files, the audit, buckets, batches."""

import itertools
import multiprocessing
import os
import shutil
import threading
import time

import numpy as np
import pytest
from helpers import SyntheticLines
from PIL import Image

from jaxcrnn import Charset, UserError
from jaxcrnn.data import buckets, prefetch
from jaxcrnn.data.audit import KINDS, audit, needed_frames
from jaxcrnn.data.images import ImageError, Limits
from jaxcrnn.data.labels import LabelFile
from jaxcrnn.data.loader import Batches, to_float
from jaxcrnn.data.prefetch import ahead


def write(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@pytest.mark.parametrize("data", ["a.png\t x y \nb.png\t未\n", "\ufeffa.png\t x y \r\n\r\nb.png\t未"])
def test_label_file_is_parsed(tmp_path, data):
    source = LabelFile(write(tmp_path / "l.txt", data))
    assert [source.text(i) for i in range(len(source))] == [" x y ", "未"]
    assert source.name(1) == "b.png"
    assert not source.faults


def test_label_file_keeps_unusual_characters(tmp_path):
    source = LabelFile(write(tmp_path / "l.txt", "a.png\tx\ty\u2028z\n"))
    assert source.text(0) == "x\ty\u2028z"


@pytest.mark.parametrize(("data", "message"), [("", "no lines; expected"), (b"a.png\t\xff\n", "line 1: byte 0xff")])
def test_invalid_label_files_are_rejected(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        LabelFile(write(tmp_path / "l.txt", data))


@pytest.fixture
def faulty(tmp_path):
    Image.new("L", (64, 32), 255).save(tmp_path / "good.png")
    Image.new("L", (64, 32), 255).save(tmp_path / "again.png")
    Image.new("L", (8, 32), 255).save(tmp_path / "narrow.png")
    Image.new("L", (1, 32), 255).save(tmp_path / "thin.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "bomb.png")
    Image.new("1", (30000, 32)).save(tmp_path / "long.png")
    write(tmp_path / "zero.png", b"")
    rows = [
        "good.png\tab",
        "no tab here",
        "none.png\tab",
        "zero.png\tab",
        "bomb.png\tab",
        "long.png\tab",
        "again.png\tax",
        "narrow.png\taa",
        "thin.png\ta",
        "again.png\t",
        "./good.png\tab",
        "again.png\tba",
        "sub/../../good.png\tab",
        "again.png\ta\tb",
    ]
    return LabelFile(write(tmp_path / "l.txt", "\n".join(rows)), Limits())


def quarter(width):
    return width // 4


def test_audit_reports_each_fault(faulty):
    corpus = audit(faulty, Charset("ab"), quarter, 32, Limits())
    assert corpus.counts() == dict(zip(KINDS, (1, 1, 1, 1, 2, 1, 1, 2, 1, 4), strict=True))
    assert [faulty.text(i) for i in corpus.indices] == ["ab"]
    assert corpus.left_out == 13
    for fault in corpus.faults:
        assert fault.where.startswith(str(faulty.path))
    details = {fault.kind: fault.detail for fault in corpus.faults}
    assert "needs 1 frames" in details["label too long for its image"]
    assert "'x' (U+0078) in 'ax'" in details["character outside the charset"]
    assert "already listed at" in details["image listed twice"]


def test_audit_keeps_text_faults_for_evaluation(faulty):
    faulty.rows = [row for row in faulty.rows if row[1] != "again.png" or row[2] == "ax"]
    corpus = audit(faulty, Charset("ab"), quarter, 32, Limits(), keep_text_faults=True)
    assert corpus.texts == ["ab", "ax", "aa", "a"]
    assert [len(label) for label in corpus.labels] == [2, 0, 2, 1]


@pytest.mark.parametrize(("ids", "frames"), [([], 0), ([1], 1), ([1, 2], 2), ([1, 1], 3), ([1, 1, 1, 2, 2], 8)])
def test_needed_frames_counts_repeated_labels(ids, frames):
    assert needed_frames(ids) == frames


def test_image_changed_after_the_audit_is_named(lines_file, tmp_path):
    Image.new("L", (64, 32)).save(tmp_path / "a.png")
    corpus = audit(LabelFile(write(tmp_path / "l.txt", "a.png\ta")), Charset("a"), quarter, 32, Limits())
    Image.new("L", (60, 32)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"l.txt, line 1: the image changed"):
        corpus.image(0)


def padded_area(widths, edges):
    return sum(min(e for e in edges if e >= w) for w in widths)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_chosen_buckets_minimize_padding(seed, count):
    widths = np.random.default_rng(seed).integers(1, 120, 30)
    chosen = buckets.choose(widths, count)
    assert list(chosen) == sorted(set(chosen))
    assert chosen[-1] >= widths.max()
    possible = range(16, 129, 16)
    best = min(padded_area(widths, e) for e in itertools.combinations(possible, count) if e[-1] >= widths.max())
    assert padded_area(widths, chosen) == best


def test_more_buckets_than_distinct_widths():
    assert buckets.choose([10, 20], 9) == (16, 32)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_epoch_contains_every_line_once(batch_size):
    widths = np.random.default_rng(0).integers(1, 300, 53)
    edges = buckets.choose(widths, 4)
    plan = buckets.epoch(widths, edges, batch_size, seed=3, number=2)
    assert sorted(np.concatenate([p.items for p in plan])) == list(range(53))
    assert len(plan) == -(-53 // batch_size)
    assert all(widths[p.items].max() <= edges[p.bucket] for p in plan)
    assert sum(len(p.items) < batch_size for p in plan) <= 1
    again = buckets.epoch(widths, edges, batch_size, seed=3, number=2)
    assert all((a.items == b.items).all() for a, b in zip(plan, again, strict=True))
    if batch_size < 53:
        other = buckets.epoch(widths, edges, batch_size, seed=3, number=3)
        assert any(len(a.items) != len(b.items) or (a.items != b.items).any() for a, b in zip(plan, other, strict=True))


def test_evaluation_order_does_not_depend_on_the_batch_size():
    widths = np.random.default_rng(0).integers(1, 300, 53)
    edges = buckets.choose(widths, 4)
    homes = [{i: p.bucket for p in buckets.in_order(widths, edges, n) for i in p.items} for n in (1, 7, 32)]
    assert homes[0] == homes[1] == homes[2]
    assert len(homes[0]) == 53


def corpus_of(lines_file, cache):
    return audit(LabelFile(lines_file), Charset("0123456789"), quarter, 32, Limits(), cache_bytes=cache)


def test_batches_contain_images_and_labels(lines_file):
    corpus = corpus_of(lines_file, 1 << 30)
    batches = Batches(corpus, buckets.choose(corpus.widths, 2), 5, seed=1)
    seen = []
    for planned, batch in batches.training(0, batches.steps_per_epoch):
        assert batch.images.shape == (5, 32, batches.buckets[planned.bucket], 1)
        for b, item in enumerate(planned.items):
            gray = corpus.image(item)
            width, length = gray.shape[1], len(corpus.labels[item])
            assert batch.widths[b] == width
            np.testing.assert_array_equal(batch.images[b, :, :width, 0], to_float(gray))
            assert (batch.images[b, :, width:] == 1).all()
            assert Charset("0123456789").decode(batch.labels[b, :length].tolist()) == corpus.texts[item]
            assert batch.label_lengths[b] == length
        assert (batch.widths[len(planned.items) :] == 0).all()
        seen += planned.items.tolist()
    assert sorted(seen) == list(range(24))


def test_batches_depend_only_on_seed_and_step(lines_file):
    def make(cache, workers, start):
        corpus = corpus_of(lines_file, cache)
        return list(Batches(corpus, (64, 128), 5, seed=1, workers=workers).training(start, 12))

    whole, rest = make(1 << 30, 1, 0), make(0, 3, 7)
    for (p, a), (q, b) in zip(whole[7:], rest, strict=True):
        assert p.bucket == q.bucket
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


def test_worker_processes_and_row_ranges_give_identical_batches(lines_file):
    corpus = corpus_of(lines_file, 1 << 30)
    whole = list(Batches(corpus, (64, 128), 6, seed=1).training(2, 9))
    others = [list(Batches(corpus, (64, 128), 6, seed=1, processes=2).training(2, 9))]
    parts = [list(Batches(corpus, (64, 128), 6, seed=1, rows=rows).training(2, 9)) for rows in ((0, 1), (1, 4), (4, 6))]
    joined = [
        (p, type(b)(*map(np.concatenate, zip(b, c, d, strict=True))))
        for (p, b), (_, c), (_, d) in zip(*parts, strict=True)
    ]
    others.append(joined)
    for other in others:
        for (p, a), (q, b) in zip(whole, other, strict=True):
            np.testing.assert_array_equal(p.items, q.items)
            for x, y in zip(a, b, strict=True):
                np.testing.assert_array_equal(x, y)


@pytest.mark.fault
def test_dead_workers_are_restarted(lines_file, capsys):
    """Without losing or repeating a batch."""
    corpus = corpus_of(lines_file, 0)
    whole = list(Batches(corpus, (64, 128), 6, seed=1).training(0, 40))
    batches, others = Batches(corpus, (64, 128), 6, seed=1, processes=2), set(multiprocessing.active_children())
    received = []
    for pair in batches.training(0, 40):
        received.append(pair)
        if len(received) == 5:
            (set(multiprocessing.active_children()) - others).pop().kill()
    assert batches.restarts == 1
    assert "died (exit code -9)" in capsys.readouterr().err
    assert len(received) == len(whole)
    for (p, a), (q, b) in zip(whole, received, strict=True):
        np.testing.assert_array_equal(p.items, q.items)
        np.testing.assert_array_equal(a.images, b.images)


@pytest.mark.fault
def test_worker_killed_mid_batch_is_restarted():
    """A pipe holds less than a batch, so a worker waits in one for most of its time."""
    others, batches, restarts = set(multiprocessing.active_children()), [], []
    for item in ahead(bytes, 3_000_000, 3_000_012, processes=2, restarted=restarts.append):
        batches.append(len(item))
        if len(batches) == 3:
            (set(multiprocessing.active_children()) - others).pop().kill()
    assert batches == list(range(3_000_000, 3_000_012))
    assert len(restarts) == 1


@pytest.mark.fault
@pytest.mark.parametrize(
    ("make", "what"),
    [(os._exit, r"worker process \d+ died \(exit code 60\)"), (time.sleep, r"worker process \d+ did not respond")],
)
def test_workers_without_output_end_the_run(make, what, monkeypatch):
    monkeypatch.setattr(prefetch, "PATIENCE", 0.5 if make is time.sleep else 60)
    others, reasons = set(multiprocessing.active_children()), []
    with pytest.raises(UserError, match=rf"^{what}.*, 3 times at step 60; try data\.processes=0"):
        list(ahead(make, 60, 62, processes=1, restarted=reasons.append))
    assert len(reasons) == 2
    assert all("restarted 1 workers at step 60" in reason for reason in reasons)
    assert not set(multiprocessing.active_children()) - others


@pytest.mark.fault
@pytest.mark.parametrize("threads", [1, 3])
def test_hung_thread_is_replaced(threads, monkeypatch):
    """Nothing is lost or repeated, and a read that never ends holds nobody up for ever."""
    monkeypatch.setattr(prefetch, "PATIENCE", 0.3)
    monkeypatch.setattr(prefetch, "LEFT_BEHIND", 0.1)
    hung, reasons, for_ever = [], [], threading.Event()

    def make(step):
        if step == 7 and not hung:
            hung.append(step)
            for_ever.wait(60)
        return step

    assert list(ahead(make, 2, 20, threads=threads, restarted=reasons.append)) == list(range(2, 20))
    assert reasons == [f"a reader thread did not respond for 0 seconds; restarted {threads} workers at step 7"]
    with pytest.raises(UserError, match="3 times at step 0; check the file system"):
        list(ahead(lambda step: for_ever.wait(60), 0, 2, threads=threads))
    for_ever.set()


def test_error_in_a_worker_process_prints_one_line(lines_file, tmp_path):
    shutil.copytree(lines_file.parent, tmp_path / "copy")
    corpus = corpus_of(tmp_path / "copy" / lines_file.name, 0)
    (tmp_path / "copy" / "5.png").write_bytes(b"gone")
    with pytest.raises(ImageError, match=r"5\.png: not an image") as caught:
        list(Batches(corpus, (64, 128), 6, processes=1).training(0, 4))
    assert caught.value.kind == "unreadable image"


def test_mixed_streams_have_no_partial_batch(lines_file):
    """Neither at the end of an epoch nor where the set is smaller than its share of a batch."""
    corpus = corpus_of(lines_file, 0)
    for lines, size in ((corpus, 7), (corpus.only(np.arange(3)), 5)):
        batches = Batches(lines, (64, 128), size, seed=1, full=True)
        planned = [batches.planned(step) for step in range(2 * batches.steps_per_epoch)]
        assert all(len(p.items) == size for p in planned)
        assert {int(i) for p in planned for i in p.items} == set(range(len(lines)))
        for p in planned:
            assert (lines.widths[p.items] <= batches.buckets[p.bucket]).all()
        again = Batches(lines, (64, 128), size, seed=1, full=True)
        np.testing.assert_array_equal(again.planned(len(planned) - 1).items, planned[-1].items)


def test_fingerprint_depends_on_the_data(lines_file):
    corpus = corpus_of(lines_file, 0)
    before = corpus.fingerprint
    assert corpus_of(lines_file, 1 << 30).fingerprint == before
    corpus.indices = corpus.indices[::-1]
    assert corpus.fingerprint != before


def test_synthetic_lines_depend_only_on_seed_and_index():
    one, other = SyntheticLines(3, 10), SyntheticLines(4, 10)
    image, text = one[5]
    again, same = SyntheticLines(3, 100)[5]
    np.testing.assert_array_equal(image, again)
    assert text == same == one.text(5)
    assert [one.text(i) for i in range(10)] != [other.text(i) for i in range(10)]
    assert image.min() < 128 < image.max()


def test_white_maps_to_one():
    np.testing.assert_array_equal(to_float(np.asarray([0, 255], np.uint8)), [-1, 1])
