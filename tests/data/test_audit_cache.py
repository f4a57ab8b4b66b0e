"""Sizes of images that audits keep on disk: never wrong, whatever happens to the images or to the cache."""

import os
import shutil
import threading

import numpy as np
import pytest
from PIL import Image

from jaxcrnn import Charset
from jaxcrnn.data import audit_cache
from jaxcrnn.data.audit import audit
from jaxcrnn.data.images import ImageError, Limits
from jaxcrnn.data.labels import LabelFile


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """A cache of its own that takes few and new images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(audit_cache, "LEAST", 1)
    monkeypatch.setattr(audit_cache, "SETTLED", -1e9)


@pytest.fixture
def lines(tmp_path):
    for i in range(5):
        Image.new("L", (30 + 10 * i, 32), 255).save(tmp_path / f"{i}.png")
    (tmp_path / "l.txt").write_text("".join(f"{i}.png\t{i}\n" for i in range(5)))
    return tmp_path / "l.txt"


class Counted(LabelFile):
    """A label file that counts the images that are read."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def audited(path, limits=None, height=32, **options):
    source = Counted(path)
    corpus = audit(
        source, Charset("01234"), lambda width: width, height, limits or Limits(), keep_sizes=True, **options
    )
    return corpus, source.reads


def files(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.sizes"))


def test_only_changed_images_are_read_again(lines, tmp_path):
    first, reads = audited(lines)
    assert reads == 5
    again, reads = audited(lines)
    assert reads == 0
    np.testing.assert_array_equal(first.widths, again.widths)
    assert first.fingerprint == again.fingerprint
    Image.new("L", (99, 32), 255).save(tmp_path / "2.png")
    (tmp_path / "3.png").write_bytes(b"")
    (tmp_path / "4.png").unlink()
    changed, reads = audited(lines)
    assert reads == 3
    assert changed.widths.tolist() == [30, 40, 99]
    assert [fault.kind for fault in changed.faults] == ["unreadable image", "missing image"]
    assert audited(lines)[1] == 2  # images with faults are read at every start
    assert len(files(tmp_path)) == 1
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_change_with_an_older_timestamp_is_detected(lines, tmp_path):
    audited(lines)
    status = (tmp_path / "0.png").stat()
    Image.new("L", (38, 32), 255).save(tmp_path / "0.png", compress_level=0)
    data = (tmp_path / "0.png").read_bytes()
    (tmp_path / "0.png").write_bytes(data[: status.st_size] if len(data) > status.st_size else data)
    os.utime(tmp_path / "0.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert audited(lines)[1] == 1


def test_images_modified_just_now_are_not_cached(lines, monkeypatch, tmp_path):
    monkeypatch.setattr(audit_cache, "SETTLED", 3.0)
    audited(lines)
    assert not files(tmp_path)
    assert audited(lines)[1] == 5


def test_sizes_do_not_depend_on_the_model(lines):
    audited(lines)
    corpus, reads = audited(lines, height=64)
    assert (corpus.widths.tolist(), reads) == ([60, 80, 100, 120, 140], 0)
    corpus, reads = audited(lines, Limits(max_width=50))
    assert [fault.kind for fault in corpus.faults] == ["absurd size"] * 2
    assert reads == 0
    assert audited(lines, Limits(max_pixels=1000))[1] == 5  # a bound on what is decoded
    assert audited(lines, Limits(trim=True))[1] == 5  # sizes of trimmed images


def test_cache_of_another_version_is_ignored(lines, monkeypatch):
    audited(lines)
    monkeypatch.setattr(audit_cache, "_decoder", lambda: ("another version",))
    assert audited(lines)[1] == 5


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, "cut", "flip"])
def test_damaged_cache_is_ignored_and_replaced(damage, lines, tmp_path):
    audited(lines)
    (file,) = files(tmp_path)
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
    file.write_bytes(data[:-7] if damage == "cut" else bytes(data) if damage == "flip" else damage)
    assert audited(lines)[1] == 5
    assert audited(lines)[1] == 0


def test_unwritable_cache_folder_is_ignored(lines, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [audited(lines)[1] for _ in range(2)] == [5, 5]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.expanduser", lambda path: (_ for _ in ()).throw(RuntimeError("no home")))
    assert audited(lines)[1] == 5


def test_stale_size_is_an_error(lines, tmp_path):
    """Whatever the file system reports: the width is compared when the image is read."""
    audited(lines)
    (file,) = files(tmp_path)
    cached = audit_cache.AuditCache([str(lines)], Limits())
    rows = cached._rows.copy()
    rows["width"] += 1
    cached.save(rows["stamp"], np.stack([rows["height"], rows["width"]], 1))
    assert file.stat().st_size
    corpus, reads = audited(lines)
    assert reads == 0
    with pytest.raises(ImageError, match="the image changed since the audit"):
        corpus.image(0)


def test_concurrent_processes_share_the_cache(lines, tmp_path):
    caches = [audit_cache.AuditCache([str(lines)], Limits()) for _ in range(8)]
    stamps = np.array([bytes([65 + i]) * 16 for i in range(500 % 190)], "S16")

    def write(number):
        for _ in range(5):
            caches[number].save(stamps, np.full((len(stamps), 2), 1 + number, np.int32))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sizes = audit_cache.AuditCache([str(lines)], Limits()).sizes(stamps)
    assert sizes.min() == sizes.max() > 0  # of one of the writers as a whole
    assert len(files(tmp_path)) == 1


def test_lmdb_rows_are_cached(tmp_path):
    pytest.importorskip("lmdb")
    from helpers import SyntheticLines

    from jaxcrnn.data.lmdb import LmdbLines, close, write_lmdb

    source = SyntheticLines(5, 3, "01234")
    write_lmdb(tmp_path / "l", source)

    def reads(folder):
        lines, seen = LmdbLines(folder), []
        get = lines._get
        lines._get = lambda key, most: seen.append(key) or get(key, most)
        corpus = audit(lines, Charset("01234"), lambda width: width, 32, Limits(), keep_sizes=True)
        close(folder)
        return corpus, len(seen)

    first, count = reads(tmp_path / "l")
    assert count == 3
    again, count = reads(tmp_path / "l")
    assert count == 0
    np.testing.assert_array_equal(first.widths, again.widths)
    shutil.rmtree(tmp_path / "l")
    write_lmdb(tmp_path / "l", SyntheticLines(6, 3, "01234"))
    assert reads(tmp_path / "l")[1] == 3


def test_images_are_decoded_once_after_a_cached_audit(lines):
    audited(lines)
    corpus, reads = audited(lines, cache_bytes=30 * 32 + 40 * 32)
    assert reads == 0
    for _ in range(2):
        for item in range(5):
            assert corpus.image(item).shape[1] == corpus.widths[item]
    assert corpus.source.reads == 2 + 2 * 3  # two fit into the memory
    part = corpus.only(np.array([1, 4]))
    part.image(0)
    assert corpus.source.reads == 8


def test_unused_cache_files_are_removed(lines, tmp_path):
    audited(lines)
    (file,) = files(tmp_path)
    old = file.with_name("old.sizes")
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    Image.new("L", (77, 32), 255).save(tmp_path / "1.png")
    audited(lines)
    assert files(tmp_path) == [file]
