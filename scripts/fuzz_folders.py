"""What `fuzz.py` lays out in unusual ways: folders, lists in other formats and encodings, labels, predictions, maps."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_targets import CHARSET, Check, _png, damaged
from hypothesis import strategies as st

from jaxcrnn.charset import Charset

FILES = (
    "0.png",
    "12.png",
    "12_1.png",
    "未.png",
    "labels.txt",
    "gt.txt",
    "val.txt",
    "labels.csv",
    "labels.json",
    "0.txt",
    "0.gt.txt",
    "._12.png",
    ".hidden.txt",
    "Thumbs.db",
    ".DS_Store",
    "desktop.ini",
    "data.mdb",
    "lock.mdb",
)
GBK = b"\xd6\xd0.png"  # as unzip leaves names of other encodings
FOLDERS = ("", "a", "a/b", ".ipynb_checkpoints", "__MACOSX", "中")
ENCODINGS = ("utf-8", "gbk", "utf-16", "utf-8-sig", "latin-1", "shift_jis", "big5")
CONTENTS = (
    "0.png\t12\n12.png\t12\n",
    "0.png 12\n",
    '0.png, "12"\n',
    "a\\0.png\t1\n",
    "../0.png\t1\n",
    "0.png\t12\t0.9\n",
    "C:\\x.png\t1\n",
    '0.png\t"1""2"\n',
    "\ufeff0.png\t1\r\n",
    "0.png\t1\r12.png\t2\r",
    "filename,words\n0.png,12\n",
    '{"0.png": "12"}',
    "未.png\t未\n",
    "0.png\t \u200b1\u3000\n",
    "",
    "\x00" * 40,
)


def _consistent(source: Any, limits: Any) -> None:
    from jaxcrnn.data.audit import audit

    corpus = audit(source, Charset(CHARSET), lambda width: width // 4, 32, limits, workers=1)
    assert len(corpus) + corpus.left_out == len(source) + len(source.faults)
    for fault in corpus.faults:
        assert "\n" not in fault.detail


def layouts() -> st.SearchStrategy[dict[str, str]]:
    """Fields of a layout, some of them invalid."""
    from jaxcrnn.data.layout import FORMATS

    return st.fixed_dictionaries(
        {},
        optional={
            "format": st.sampled_from((*FORMATS, "excel")),
            "encoding": st.sampled_from((*ENCODINGS, "utf-61", "base64")),
            "root": st.sampled_from(("", ".", "a", "none")),
        },
    )


def folders(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Folders with label files, images, LMDBs, hidden files, links in loops and names that are not UTF-8."""
    from jaxcrnn.data.formats import open_source
    from jaxcrnn.data.images import Limits
    from jaxcrnn.data.layout import Layout

    file = io.BytesIO()
    _png().save(file, "PNG")
    place = folder / "set"
    name = st.one_of(st.sampled_from(FILES).map(os.fsencode), st.just(GBK))
    content = st.one_of(
        st.just(file.getvalue()),
        st.tuples(st.sampled_from(CONTENTS), st.sampled_from(ENCODINGS)).map(lambda c: c[0].encode(c[1], "replace")),
        st.binary(max_size=40),
    )
    files = st.lists(st.tuples(st.sampled_from(FOLDERS), name, content), max_size=7)
    links = st.lists(st.tuples(st.sampled_from(FOLDERS[1:]), st.sampled_from(FOLDERS)), max_size=2)

    def check(case: Any) -> None:
        written, linked, fields, normalize = case
        shutil.rmtree(place, ignore_errors=True)
        for where, called, data in written:
            (place / where).mkdir(parents=True, exist_ok=True)
            with open(os.fsencode(place / where) + b"/" + called, "wb") as made:
                made.write(data)
        place.mkdir(exist_ok=True)
        for link, target in linked:
            if not os.path.lexists(place / link) and (place / link).parent.is_dir():
                (place / link).symlink_to(place / target)
        limits = Limits(normalize=normalize)
        if fields.get("root"):
            fields = fields | {"root": str(place / fields["root"])}
        try:
            _consistent(open_source(place, limits, Layout(**fields)), limits)
        finally:
            from jaxcrnn.data.lmdb import close

            for opened in place.rglob("*.mdb"):
                close(opened)
                close(opened.parent)

    return st.tuples(files, links, layouts(), st.sampled_from(("", "nfc,width,space", "space"))), check


def lists(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Lists in every format and encoding, damaged, read with every layout."""
    from jaxcrnn.data.formats import open_source
    from jaxcrnn.data.images import Limits
    from jaxcrnn.data.layout import Layout

    for name in ("0.png", "12.png"):
        _png().save(folder / name)
    path = folder / "list.txt"
    seeds = [text.encode(encoding, "replace") for text in CONTENTS for encoding in ("utf-8", "gbk", "utf-16")]

    def check(case: Any) -> None:
        data, fields = case
        path.write_bytes(data)
        if fields.get("root"):
            fields = fields | {"root": str(folder / fields["root"])}
        _consistent(open_source(path, Limits(), Layout(**fields)), Limits())

    return st.tuples(damaged(seeds, 3), layouts()), check


def texts(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Texts of any characters: normalized twice, written as predictions and read again, printed where they lack."""
    from jaxcrnn._console import to_json
    from jaxcrnn.data.normalize import normalize
    from jaxcrnn.data.predictions import Predictions, read_predictions, write_predictions

    anything = st.text(st.characters(exclude_categories=()), max_size=12)
    unusual = st.text(st.sampled_from("\t\n\r \u3000\u200b\u200d\ufeff１ａe\u0301ｶﾞ[]]\\未\ud800\udcd6"), max_size=12)
    names = ("nfc", "width", "space", "width,space", "nfc,width,space")

    def check(case: Any) -> None:
        rows, operations = case
        for row in rows:
            for text in row:
                once = normalize(text, operations)
                assert normalize(once, operations) == once
                to_json(text).encode("utf-8", "backslashreplace")
        path = folder / "read.txt"
        kept = [row for row in rows if row[0]]
        write_predictions(path, Predictions(*map(list, zip(*kept, strict=True))) if kept else Predictions([], [], []))
        again = read_predictions(path)
        assert len(again.names) == len(kept)

    text = st.one_of(anything, unusual)
    return st.tuples(st.lists(st.tuples(text, text, text), max_size=4), st.sampled_from(names)), check


def maps(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Maps of names for the weights of a CRNN whose parts have other names."""
    from jaxcrnn.interop import name_maps

    size, classes = 5, 11
    state = {
        "features.0.weight": (4, 1, 3, 3),
        "features.0.bias": (4,),
        "features.4.weight": (6, 4, 3, 3),
        "features.4.bias": (6,),
        "classifier.weight": (classes, 2 * size),
        "classifier.bias": (classes,),
    }
    for direction in ("", "_reverse"):
        shapes = {"weight_ih": (4 * size, 96), "weight_hh": (4 * size, size), "bias_ih": (4 * size,)}
        state |= {f"lstm.{name}_l0{direction}": shape for name, shape in (shapes | {"bias_hh": (4 * size,)}).items()}
    arrays = {name: np.ones(shape, np.float32) for name, shape in state.items()}
    rows = (
        "backbone.conv0 = features.0",
        "backbone.conv1 = features.4",
        "recurrent.0 = lstm.*_l0",
        "head = classifier",
    )
    whole = "\n".join(rows) + "  # comment\n"
    path = folder / "names.map"

    def check(case: tuple[bytes, str]) -> None:
        data, pools = case
        path.write_bytes(data)
        name_maps.layout(name_maps.read(path, arrays, folder / "weights.pth"), path, classes, pools=pools)

    return st.tuples(damaged([whole.encode()], 4), st.sampled_from(("", "2x2,8x1", "32x1", "9x9", "2x2"))), check
