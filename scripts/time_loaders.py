"""Lines a second that each kind of data set gives, with one and two workers, beside what a training step takes.

python scripts/time_loaders.py LABELS [--batch 32] [--seconds 8]
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import jax

from jaxcrnn.charset import Charset
from jaxcrnn.config import load
from jaxcrnn.data import buckets
from jaxcrnn.data.atlas import embedded
from jaxcrnn.data.audit import audit
from jaxcrnn.data.images import Limits
from jaxcrnn.data.lmdb_lines import LmdbLines, write_lmdb
from jaxcrnn.data.loader import Batches
from jaxcrnn.data.readers import open_source
from jaxcrnn.data.texts import TextConfig, Texts
from jaxcrnn.looks import LEVELS
from jaxcrnn.render import Glyphs
from jaxcrnn.streams import RenderedBatches
from jaxcrnn.train import init_state, train_step


def rate(stream, seconds: float) -> float:
    """Lines a second after the first batches, none of them waited for by a device."""
    batches = stream.training(0, sys.maxsize)
    for _ in range(2 * len(stream.buckets) + 4):
        jax.block_until_ready(next(batches)[1].images)
    began, lines = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        jax.block_until_ready(next(batches)[1].images)
        lines += stream.batch_size
    return lines / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=8)
    args = parser.parse_args()
    source = open_source(args.labels)
    charset = Charset.from_labels([source.text(i) for i in range(len(source))])
    atlas = embedded()
    written = Charset(atlas.characters)
    with tempfile.TemporaryDirectory() as folder:
        write_lmdb(Path(folder, "lmdb"), source)
        kinds = {"label file": source, "LMDB": LmdbLines(Path(folder, "lmdb"))}
        for name, kind in kinds.items():
            corpus = audit(
                kind, charset, lambda width: width // 4, 32, Limits()
            )  # nothing kept: every image is decoded
            for workers, processes in ((1, 0), (2, 0), (1, 1), (2, 2)):
                widths = buckets.choose(corpus.widths, 2)
                stream = Batches(corpus, widths, args.batch, workers=workers, processes=processes)
                readers = f"{processes or workers} {'processes' if processes else 'threads'}"
                print(f"{name}, {readers}: {rate(stream, args.seconds):,.0f} lines a second", flush=True)
    stream = None
    for level, look in LEVELS.items():
        texts = Texts(TextConfig(source="lookalikes", shortest=7, longest=7), atlas.characters, 0)
        stream = RenderedBatches(texts, written, Glyphs.of(atlas, written), look, args.batch, 0)
        width = stream.buckets[0]
        print(f"rendered, {level}, {width} px: {rate(stream, args.seconds):,.0f} lines a second", flush=True)
    assert stream is not None
    config = load(None, ["augment.probability=0"]).for_charset(written)
    _, batch = next(stream.training(0, 1))
    state, key, step = init_state(config, jax.random.key(0)), jax.random.key(1), jax.jit(train_step, donate_argnums=1)
    state, _ = step(config, state, batch, key)
    began, steps = time.monotonic(), 0
    while time.monotonic() - began < args.seconds:
        state, info = step(config, state, batch, key)
        jax.block_until_ready(info)
        steps += 1
    print(f"a step takes {steps * args.batch / (time.monotonic() - began):,.0f} lines of {width} px a second")


if __name__ == "__main__":
    main()
