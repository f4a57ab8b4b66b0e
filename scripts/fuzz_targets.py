"""What `fuzz.py` damages: for each kind of input, files to start from and what is done with them."""

from __future__ import annotations

import io
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from hypothesis import strategies as st
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from helpers import SyntheticLines

from jaxcrnn.charset import Charset
from jaxcrnn.errors import UserError

CHARSET = "0123456789"
Check = Callable[[Any], None]


class Target(NamedTuple):
    """One kind of input.

    Attributes:
      inputs: how many, at a share of 1.
      make: given an empty folder, what inputs are drawn from, and what is done with one.
    """

    inputs: int
    make: Callable[[Path], tuple[st.SearchStrategy[Any], Check]]


def damaged(seeds: list[bytes], most: int = 8) -> st.SearchStrategy[bytes]:
    """Files that were whole, with bits turned, bytes replaced, parts cut, doubled or put in."""
    place = st.floats(0, 1, exclude_max=True)
    piece = st.one_of(
        st.binary(max_size=8),
        st.sampled_from(
            [
                b"\xff" * 4,
                b"\x00" * 4,
                b"\xff\xff\xff\x7f",
                b"\n",
                b"\t",
                b"[" * 3000,
                b"9" * 5000,
                b"../",
                b"\xef\xbb\xbf",
            ]
        ),
    )
    edit = st.tuples(st.sampled_from(["turn", "set", "cut", "insert", "end", "double"]), place, place, piece)

    def apply(whole: bytes, edits: list[tuple[str, float, float, bytes]]) -> bytes:
        data = bytearray(whole)
        for how, where, length, new in edits:
            at = int(where * len(data))
            stop = at + int(length * min(64, len(data) - at))
            if how == "turn" and data:
                data[at] ^= 1 << int(length * 8)
            elif how == "set":
                data[at : at + len(new)] = new
            elif how == "cut":
                del data[at:stop]
            elif how == "insert":
                data[at:at] = new
            elif how == "end" and length < 0.3:
                del data[at:]
            elif how == "double":
                data[at:at] = data[at:stop] * 3
        return bytes(data)

    return st.builds(apply, st.sampled_from(seeds), st.lists(edit, max_size=most))


def _file(folder: Path, name: str, use: Callable[[Path], object]) -> Check:
    path = folder / name

    def check(data: bytes) -> None:
        path.write_bytes(data)
        use(path)

    return check


def _texts(*whole: str) -> st.SearchStrategy[bytes]:
    seeds = [text.encode() for text in whole]
    return st.one_of(
        damaged(seeds), st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")), st.binary(max_size=60)
    )


def _png(size: tuple[int, int] = (40, 16)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, size[::-1], np.uint8))


def labels(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Label files, whole and then each line looked at."""
    from jaxcrnn.data.audit import audit
    from jaxcrnn.data.images import Limits
    from jaxcrnn.data.labels import LabelFile

    _png().save(folder / "a.png")

    def use(path: Path) -> None:
        source = LabelFile(path)
        corpus = audit(source, Charset(CHARSET), lambda width: width // 4, 32, Limits(), workers=1)
        assert not any(source.root.leaves(source.name(i)) for i in range(len(source)))
        assert len(corpus) + corpus.left_out == len(source) + len(source.faults)

    whole = (
        "a.png\t012\nb.png\t9\r\n\ufeffc\t\n",
        '["a.png", "b.png"]\t12\n',
        "../a.png\t1\n/etc/passwd\t2\na.png\t未\u2028\n",
    )
    return _texts(*whole), _file(folder, "labels.txt", use)


def tables(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Other lists: EasyOCR's, docTR's, mmocr's, look-alike groups and tables, predictions."""
    from jaxcrnn.data.formats import open_source
    from jaxcrnn.data.predictions import read_predictions
    from jaxcrnn.lookalikes.groups import read_groups, read_table

    mmocr = '{"data_list": [{"img_path": "a.png", "instances": [{"text": "12"}]}]}'
    kinds: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
        "l.csv": (open_source, ('filename,words\na.png,12\nb.png,"1,2"\n',)),
        "l.json": (open_source, ('{"a.png": "12", "b.png": "3"}', mmocr)),
        "groups.txt": (read_groups, ("未末\n土 士 # two\n",)),
        "table.txt": (read_table, ("未\t末\n土\t士\n", "未 末\n土 士\n")),
        "read.txt": (read_predictions, ("a.png\t12\t13\n", "1 [12] [13]\n2 [] [4]\n")),
    }
    checks = {name: _file(folder, name, use) for name, (use, _) in kinds.items()}
    inputs = st.one_of([st.tuples(st.just(name), _texts(*whole)) for name, (_, whole) in kinds.items()])
    return inputs, lambda pair: checks[pair[0]](pair[1])


def charsets(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Charset files; one that is taken is written and read again, and texts go to classes and back."""

    def use(path: Path) -> None:
        charset = Charset.from_file(path)
        charset.save(folder / "again.txt")
        assert Charset.from_file(folder / "again.txt") == charset
        text = "".join(charset.characters)
        assert charset.decode(charset.encode(text)) == text

    return _texts("0\n1\n2\n", "未\r\n末\r\n \r\n", "\ufeffa\nb", "土\n士\n土\n"), _file(folder, "charset.txt", use)


def _like(default: Any) -> st.SearchStrategy[Any]:
    """Values of the type of a key's default."""
    kinds = {
        bool: st.booleans(),
        int: st.one_of(st.integers(-2, 1000), st.integers()),
        float: st.one_of(st.floats(-1, 2), st.floats()),
        str: st.text(max_size=8),
        tuple: st.lists(st.floats(0, 2), max_size=3),
    }
    return kinds.get(type(default), st.none())


def configs(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Configurations and plans of comparisons as YAML, and values of ``--set``; one that is taken reads back equal."""
    import dataclasses

    from jaxcrnn.experiments.plan import read
    from jaxcrnn.runs import config

    sections = {f.name: config.keys(config._section(f.name)) for f in dataclasses.fields(config.Config)}
    known = ["vgg", "sgd", "flow1", "1e-3", "hard"]
    value: st.SearchStrategy[Any] = st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from(known)),
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
        max_leaves=4,
    )
    defaults = [(name, key, f.default) for name, known in sections.items() for key, f in known.items()]
    entry = st.sampled_from(defaults).flatmap(
        lambda e: st.tuples(st.just(e[0]), st.just(e[1]), st.one_of(st.just(config._plain(e[2])), _like(e[2]), value))
    )
    written = st.lists(entry, max_size=4).map(
        lambda entries: yaml.safe_dump({s: {k: v for t, k, v in entries if s == t} for s, _, _ in entries}).encode()
    )
    whole = config.to_yaml(config.Config())
    plan = (
        "config: {optim: {steps: 5}}\narms: {ctc: {}, flow1: {loss: {preset: flow1}}}\nseeds: [0, 1]\ntests: {lines: 5}"
    )
    override = st.one_of(
        entry.map(lambda e: f"{e[0]}.{e[1]}={e[2]}"), entry.map(lambda e: f"{e[0]}.{e[1]}={e[2]}"), st.text(max_size=20)
    )
    path = folder / "config.yaml"

    def check(case: tuple[str, bytes, list[str]]) -> None:
        kind, data, overrides = case
        path.write_bytes(data)
        if kind == "plan":
            read(path, overrides)
            return
        found = config.load(path, overrides)
        path.write_text(config.to_yaml(found), encoding="utf-8")
        assert repr(config.load(path)) == repr(found)  # as text, so that NaN is itself

    data = st.one_of(written, _texts(whole, whole[:200], "a: &x [*x]\n", "optim: {steps: 5, steps: 6}\n", "- 1\n"))
    plans = _texts(plan)
    kinds = st.one_of(st.tuples(st.just("config"), data), st.tuples(st.just("plan"), plans))
    return st.builds(lambda k, o: (*k, o), kinds, st.lists(override, max_size=2)), check


def images(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Image files of every format that is read, and of some that are not."""
    from jaxcrnn.data.images import Limits, fit_height, read_gray

    gray, limits, seeds = _png(), Limits(max_pixels=4_000_000), []
    for kind in (
        "PNG",
        "JPEG",
        "GIF",
        "BMP",
        "TIFF",
        "WEBP",
        "PPM",
        "TGA",
        "ICO",
        "PCX",
        "JPEG2000",
        "SGI",
        "EPS",
        "PDF",
    ):
        for mode in ("L", "RGB", "RGBA", "P", "1", "I;16", "I", "F", "CMYK"):
            file = io.BytesIO()
            try:
                gray.convert("I" if mode == "I;16" else mode).convert(mode).save(file, kind)
            except (OSError, ValueError, KeyError):
                continue
            seeds.append(file.getvalue())

    def check(data: bytes) -> None:
        found = fit_height(read_gray(data, limits), 32, limits)
        assert found.dtype == np.uint8
        assert found.shape[0] == 32

    return st.one_of(damaged(seeds), damaged(seeds, 2), st.binary(max_size=80)), check


def _read_all(source: Any) -> None:
    for i in range(len(source)):
        try:
            source[i]
        except UserError:
            continue


def lmdb(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """LMDB files, every line read."""
    from jaxcrnn.data.lmdb import LmdbLines, close, write_lmdb

    write_lmdb(folder / "whole", SyntheticLines(0, 12, CHARSET))
    whole = (folder / "whole" / "data.mdb").read_bytes()
    (folder / "broken").mkdir()

    def check(data: bytes) -> None:
        (folder / "broken" / "data.mdb").write_bytes(data)
        try:
            _read_all(LmdbLines(folder / "broken"))
        finally:
            close(folder / "broken")

    # Nearer to the pages' own numbers than to the images.
    heads = st.lists(
        st.tuples(st.integers(0, len(whole) // 4096 - 1), st.integers(0, 255), st.integers(0, 255)), max_size=12
    )

    def at_heads(edits: list[tuple[int, int, int]]) -> bytes:
        data = bytearray(whole)
        for page, offset, value in edits:
            data[page * 4096 + offset] = value
        return bytes(data)

    return st.one_of(damaged([whole]), heads.map(at_heads)), check


def centers(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Files of centers (safetensors, PaddleOCR's pickle) and of glyphs (npz)."""
    import jax.numpy as jnp

    from jaxcrnn.render import atlas
    from jaxcrnn.runs import center_files
    from jaxcrnn.types import CenterState

    charset = Charset(CHARSET)
    center_files.save(folder / "c", CenterState(jnp.ones((11, 4)), jnp.ones(11)), charset)
    paddle = pickle.dumps({i: np.ones((1, 4), np.float32) for i in range(11)}, 2)
    atlas.save(atlas.embedded().select("01"), folder / "a.npz")
    use: dict[str, Callable[[Path], object]] = {
        "centers": lambda path: center_files.load(path, charset, 4),
        "atlas.npz": atlas.load,
    }
    checks = {name: _file(folder, name, how) for name, how in use.items()}
    inputs = st.one_of(
        st.tuples(st.just("centers"), damaged([(folder / "c").read_bytes(), paddle, pickle.dumps(print)], 3)),
        st.tuples(st.just("atlas.npz"), damaged([(folder / "a.npz").read_bytes()], 3)),
    )
    return inputs, lambda pair: checks[pair[0]](pair[1])


def runs(folder: Path) -> tuple[st.SearchStrategy[Any], Check]:
    """Run folders with one file of them damaged, with or without a new checksum manifest, and opened."""
    import jax

    from jaxcrnn.runs import checkpoint, config, seal
    from jaxcrnn.runs import folder as run_folders
    from jaxcrnn.train import init_state

    small = ["model.backbone=tiny", "model.hidden=4", "optim.steps=1", "loss.preset=flow1"]
    run = run_folders.create(folder / "whole", config.load(overrides=small), Charset(CHARSET), {})
    with checkpoint.Checkpoints(run.folder / "checkpoints") as saved:
        saved.save(init_state(run.train_config, jax.random.key(0)), {"counts": {}}, 0.5)
    whole = {str(p.relative_to(run.folder)): p.read_bytes() for p in sorted(run.folder.rglob("*")) if p.is_file()}
    there = folder / "broken"

    def check(case: tuple[str, bytes, bool]) -> None:
        name, data, sealed = case
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(run.folder, there)
        (there / name).write_bytes(data)
        if sealed and name.startswith("checkpoints"):
            seal.seal(there / "checkpoints" / "0")
        opened = run_folders.open_run(there)
        opened.facts()
        opened.state("best")

    inputs = st.sampled_from(sorted(whole)).flatmap(
        lambda name: st.tuples(st.just(name), damaged([whole[name]], 3), st.booleans())
    )
    return inputs, check


TARGETS = {
    "labels": Target(25_000, labels),
    "tables": Target(25_000, tables),
    "charsets": Target(15_000, charsets),
    "configs": Target(8_000, configs),
    "images": Target(30_000, images),
    "lmdb": Target(4_000, lmdb),
    "centers": Target(8_000, centers),
    "runs": Target(600, runs),
}
