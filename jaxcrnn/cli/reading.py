"""The commands that use a trained run: evaluate, recognize, centers, parity."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import numpy as np
from PIL import Image

from jaxcrnn import _console
from jaxcrnn._files import can_be_written
from jaxcrnn.charset import Charset
from jaxcrnn.cli.decoding import decoder_of
from jaxcrnn.data.audit import TEXT_KINDS, Corpus, audit
from jaxcrnn.data.formats import open_sources
from jaxcrnn.data.images import ImageError, Limits, fit_height, read_gray
from jaxcrnn.data.labels import Source
from jaxcrnn.data.predictions import write_predictions
from jaxcrnn.decoding.evaluate import Evaluation, Line, estimate_centers, evaluate, recognize
from jaxcrnn.errors import UserError
from jaxcrnn.objective import PRESETS, LossConfig
from jaxcrnn.report import tables
from jaxcrnn.runs import center_files, folder
from jaxcrnn.runs import config as configs
from jaxcrnn.train import eval_variables


def audit_lines(
    config: configs.Config, charset: Charset, source: Source, *, keep_text_faults: bool, limits: Limits | None = None
) -> Corpus:
    """Looks at every row of a data set, with progress where it takes long."""
    began, shown = time.monotonic(), _console.make()

    def progress(done: int) -> None:
        if done % 500 == 0 and time.monotonic() - began > 2:
            shown.progress(done, len(source), "lines looked at")

    with shown:
        return audit(
            source,
            charset,
            config.model.frames,
            config.model.height,
            limits or config.data.limits,
            keep_text_faults=keep_text_faults,
            cache_bytes=config.data.cache_mb << 20,
            workers=config.data.workers,
            progress=progress,
        )


def usable_lines(
    run: folder.Run, paths: Sequence[str], args: Namespace, *, keep_text_faults: bool, shown_on: TextIO
) -> Corpus:
    """The lines of data sets that a run can use, after showing the faults of the others.

    Args:
      run: whose charset, size of images and limits hold.
      paths: of the data sets.
      args: ``skip_bad`` and ``allow_outside``.
      keep_text_faults: as `jaxcrnn.data.audit.audit`.
      shown_on: where faults are listed.

    Raises:
      UserError: there are faults that are not to be skipped, or no line is left.
    """
    limits = limits_of(run, args, outside=args.allow_outside)
    source, path = open_sources(paths, limits), ", ".join(paths)
    corpus = audit_lines(run.config, run.charset, source, keep_text_faults=keep_text_faults, limits=limits)
    if corpus.faults:
        print(tables.audit_table(path, corpus), end="\n\n", file=shown_on)
    check_usable(corpus, path, keep_text_faults=keep_text_faults, skip_bad=args.skip_bad)
    return corpus


def limits_of(run: folder.Run, args: Namespace, *, outside: bool = False) -> Limits:
    """What images may ask of the machine: not as the run's config has it, which may be a stranger's.

    Args:
      run: whose bounds hold where they are tighter than the default ones.
      args: ``max_pixels`` and ``max_bytes``, None where they were not given.
      outside: whether lists may name images outside their folder.

    Raises:
      UserError: a bound below 1.
    """
    own = run.config.data.limits
    limits = dataclasses.replace(own.of_stranger(), outside=outside)
    for name in ("max_pixels", "max_bytes"):
        given, asked, taken = getattr(args, name), getattr(own, name), getattr(limits, name)
        if given is not None and given < 1:
            raise UserError(f"--{name.replace('_', '-')} {given}: expected 1 or more")
        if given is None and asked > taken:
            print(f"{run.folder / folder.CONFIG}: data.{name} is {asked:,}; {taken:,} holds here, as long as no "
                  f"--{name.replace('_', '-')} says otherwise", file=sys.stderr)  # fmt: skip
        limits = dataclasses.replace(limits, **{name: given or taken})
    return limits


def check_usable(corpus: Corpus, path: str, *, keep_text_faults: bool, skip_bad: bool) -> None:
    """Stops at faults that are not to be skipped, and where no line is left.

    Raises:
      UserError: either.
    """
    unusable = [fault for fault in corpus.faults if not (keep_text_faults and fault.kind in TEXT_KINDS)]
    if unusable and not skip_bad:
        raise UserError(
            f"{path}: {len(unusable)} faults, listed above; mend them, or leave such rows out with --skip-bad"
        )
    if not len(corpus):
        raise UserError(f"{path}: no usable line")


def validation_path(run: folder.Run, given: str | None) -> str:
    """The data set that was given, else the run's validation set.

    Raises:
      UserError: there is neither.
    """
    path = given or run.config.data.val
    if not path:
        raise UserError("the run has no validation set; give --data FILE, a label file of path<TAB>text")
    return path


def evaluate_run(args: Namespace) -> int:
    """``jaxcrnn evaluate``."""
    run = folder.open_run(Path(args.run), args.trust_code)
    path = validation_path(run, args.data)
    if args.charset:
        folder.same_charset(run, Charset.from_file(args.charset, run.config.data.blank), args.charset)
    if args.batch_size is not None and args.batch_size < 1:
        raise UserError(f"--batch-size {args.batch_size}: expected 1 or more")
    if args.predictions:
        can_be_written(args.predictions)
    state, step = run.state(args.checkpoint)
    decoder = decoder_of(args, run, state)
    shown_on = sys.stderr if args.json else sys.stdout
    corpus = usable_lines(run, [path], args, keep_text_faults=True, shown_on=shown_on)
    batch_size = args.batch_size or run.config.data.batch_size
    buckets = run.config.data.buckets
    result = evaluate(
        run.train_config, state, run.charset, corpus, batch_size=batch_size, buckets=buckets, decoder=decoder
    )
    if args.predictions:
        write_predictions(Path(args.predictions), result.predictions())
    if args.json:
        print(tables.evaluation_json(result, corpus, {"run": str(run.folder), "data": str(path), "step": step}))
        return 0
    print_evaluation(run, step, path, corpus, result, args.positions)
    return 0


def print_evaluation(
    run: folder.Run, step: int, path: str, corpus: Corpus, result: Evaluation, positions: bool
) -> None:
    """Scores under every rule, and the first misread lines."""
    print(f"{run.folder}, checkpoint of step {step}, on {path}")
    loss = f"CTC loss {result.loss:.4f} over {result.spelled}"
    print(f"{len(result.lines)} lines read, {corpus.left_out} left out; {loss}\n")
    print(tables.score_table(*result.scores()), end="\n\n")
    if positions:
        print(tables.position_table(result), end="\n\n")
    print(tables.mistakes(result))


def recognize_images(args: Namespace) -> int:
    """``jaxcrnn recognize``: what cannot be read is reported on its own line, and the exit code says so."""
    if args.characters and not args.json:
        raise UserError("--characters is for --json; expected --json --characters")
    run = folder.open_run(Path(args.run), args.trust_code)
    state, _ = run.state(args.checkpoint)
    decoder = decoder_of(args, run, state)
    limits = limits_of(run, args)
    failed: list[tuple[str, str]] = []
    stretched: dict[str, float] = {}

    def images() -> Iterator[tuple[str, np.ndarray]]:
        for name, file in _inputs(args.images, sys.stdin.buffer):
            try:
                gray = read_gray(file, limits, name)
                scaled = fit_height(gray, run.config.model.height, limits, name)
                stretched[name] = gray.shape[1] / scaled.shape[1]
                yield name, scaled
            except ImageError as error:
                failed.append((name, str(error)))
                print(f"jaxcrnn recognize: {error}", file=sys.stderr)
                if args.json:
                    print(json.dumps({"path": name, "error": str(error)}, ensure_ascii=False))

    for line in recognize(run.train_config, state, run.charset, images(), decoder=decoder):
        print(_shown(line, args, stretched[line.name]), flush=True)
    if len(failed) > 1:
        raise UserError(f"{len(failed)} of the images could not be read, each named above")
    return 2 if failed else 0


def _shown(line: Line, args: Namespace, scale: float) -> str:
    """A line of output; places are in pixels of the image as it was given."""
    if not args.json:
        others = "".join(f"\t{text}" for text, _ in line.others)
        return f"{line.name}\t{line.text}\t{line.confidence:.4f}{others}"
    values: dict[str, Any] = {"path": line.name, "text": line.text, "confidence": round(line.confidence, 4)}
    if args.characters:
        values["characters"] = [
            {"text": c.text, "confidence": round(c.confidence, 4), "left": round(c.left * scale, 1),
             "right": round(c.right * scale, 1)} for c in line.characters
        ]  # fmt: skip
    if line.others:
        values["others"] = [{"text": text, "score": round(score, 4)} for text, score in line.others]
    return json.dumps(values, ensure_ascii=False)


def _inputs(given: list[str], stdin: BinaryIO) -> Iterator[tuple[str, str | bytes]]:
    """Names and files: a file is itself, a folder its images in order, ``-`` an image or a list of paths on stdin."""
    for item in given:
        path = Path(item)
        if item == "-":
            data = stdin.read()
            try:
                paths = data.decode("utf-8").split("\n")
            except UnicodeDecodeError:
                yield "stdin", data
            else:
                yield from ((p.removesuffix("\r"),) * 2 for p in paths if p.strip())
        elif path.is_dir():
            known = {suffix for suffix, form in Image.registered_extensions().items() if form in Image.OPEN}
            files = sorted(p for p in path.rglob("*") if p.is_file())
            images = [p for p in files if p.suffix.lower() in known]
            if len(images) < len(files):
                print(f"{item}: {len(files) - len(images)} files that are not images passed over", file=sys.stderr)
            if not images:
                raise UserError(f"{item}: no image in this folder; expected files such as .png or .jpg")
            yield from ((str(p), str(p)) for p in images)
        else:
            yield item, item


def estimate(args: Namespace) -> int:
    """``jaxcrnn centers estimate``."""
    run = folder.open_run(Path(args.run), args.trust_code)
    data = run.config.data
    paths = [args.data] if args.data else [data.train, *data.more]
    if not all(paths):
        raise UserError("the run does not name its training set; give --data FILE, a label file of path<TAB>text")
    out = Path(args.out or run.folder / folder.CENTERS)
    can_be_written(out)
    args.skip_bad = args.skip_bad or run.facts().get("skip_bad", False)
    corpus = usable_lines(run, paths, args, keep_text_faults=False, shown_on=sys.stdout)
    state, step = run.state(args.checkpoint)
    centers, exact = estimate_centers(
        run.train_config, state, corpus, batch_size=data.batch_size, buckets=data.buckets, workers=data.workers
    )
    if not exact:
        raise UserError(f"{run.folder}: not one of {len(corpus)} lines is recognised exactly, so there is nothing to "
                        "estimate; expected a run that reads its training set")  # fmt: skip
    center_files.save(out, centers, run.charset)
    counts = np.asarray(centers.counts)
    unseen = [run.charset.name(int(i)) for i in np.flatnonzero(counts == 0)]
    print(f"{run.folder}, checkpoint of step {step}, on {', '.join(paths)}")
    print(f"{exact} of {len(corpus)} lines recognised exactly, {int(counts.sum())} frames; {corpus.left_out} left out")
    print(f"{len(counts) - len(unseen)} of {len(counts)} classes have a center, {len(unseen)} were never seen", end="")
    print((": " + " ".join(unseen[:40]) + (" ..." if len(unseen) > 40 else "")) if unseen else "")
    blank = counts[run.charset.blank] / counts.sum()
    print(f"the blank has {blank:.1%} of the frames")
    print(
        f"written to {out}; go on with: jaxcrnn train --init-from {run.folder} --centers {out} --preset flow2 --out ..."
    )
    return 0


def parity_ladder(args: Namespace) -> int:
    """``jaxcrnn parity``: exit code 1 when a number is farther off than its tolerance."""
    from jaxcrnn.parity import answers
    from jaxcrnn.parity.ladder import ask_torch, compare, make_task  # not for those who read one image

    run = folder.open_run(Path(args.run), args.trust_code)
    presets = tuple(PRESETS)
    if args.presets:
        presets = () if args.presets == "none" else tuple(args.presets.split(","))
    for name in presets:
        if name not in PRESETS:
            raise UserError(f"--presets {name}: expected some of {', '.join(PRESETS)}, or none")
    state, step = run.state(args.checkpoint)
    config = run.train_config
    own = config.loss if args.presets is None and config.loss != LossConfig(config.loss.preset) else None
    if own and own.import_paths:
        print("the run's own loss is not compared: the reference has no functions from outside", file=sys.stderr)
        own = None
    task = make_task(config.model, eval_variables(state), presets=presets, loss=own, dtype=args.dtype)
    theirs = ask_torch(task)
    ladder = compare(answers.answer(task), theirs, args.dtype)
    if args.json:
        print(json.dumps([rung._asdict() | {"holds": rung.holds} for rung in ladder], indent=2))
    else:
        print(f"{run.folder}, checkpoint of step {step}, {args.dtype}: max|jaxcrnn - torch_ref| / max|torch_ref|\n")
        print(tables.parity_table(ladder))
    broken = sum(not rung.holds for rung in ladder)
    if broken:
        print(f"\n{broken} of {len(ladder)} rungs do not hold", file=sys.stderr)
    return 1 if broken else 0
