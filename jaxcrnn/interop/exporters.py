"""Exporters of trained recognisers to formats that do not need this package."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from safetensors.numpy import save

from jaxcrnn import __version__
from jaxcrnn._text import read_text
from jaxcrnn.convert import to_torch
from jaxcrnn.errors import UserError
from jaxcrnn.interop import checkpoint_layouts, importer, onnx_graph, recognizer, reorder, state_dicts
from jaxcrnn.interop.exported import is_exported, located
from jaxcrnn.interop.interpolation import interpolated
from jaxcrnn.interop.recognizer import Recognizer
from jaxcrnn.interop.trained import open_untrusted
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.runs.folder import FACTS, open_weights

LEAST = 16  # width in pixels that gives at least one frame with every backbone


def export(
    source: Path,
    out: Path,
    kind: str,
    checkpoint: str = "best",
    *,
    trust_code: bool = False,
    start: Path | None = None,
    share: float = 0.5,
) -> str:
    """Export a recogniser for other programs.

    Args:
      source: run folder, or a folder exported as safetensors.
      out: folder or file to create; it gets this name once it is complete.
      kind: one of `FORMATS`.
      checkpoint: ``"best"``, ``"latest"`` or a step.
      trust_code: whether the modules that the loss of a run names may be imported, which runs their code.
      start: recogniser that the source was fine-tuned from, to export what lies between the weights of both
        (`jaxcrnn.interop.interpolation.interpolated`); None for the weights of the source.
      share: with ``start``, share of the weights of the source.

    Returns:
      A description of what was written.

    Raises:
      UserError: ``out`` exists or cannot be written, the recogniser cannot be expressed in this format, or ``start`` is
        another model.
    """
    reader = recognizer.load(source, checkpoint, trust_code=trust_code)
    if start is not None:
        before = recognizer.load(start)
        try:
            reader = interpolated(before, reader, share)
        except UserError as error:
            raise UserError(f"{source} and {start}: {error}") from None
    if out.exists():
        raise UserError(f"--out {out}: already exists; expected a new name")
    part = out.with_name(out.name + ".part")
    try:
        made = FORMATS[kind](reader, source, part)
        if start is not None and (part / recognizer.CARD).is_file():
            with (part / recognizer.CARD).open("a", encoding="utf-8") as file:
                file.write(
                    f"\nThese weights lie between those of the training (share {share:g}) and those at its start "
                    f"({start.name}, {1 - share:g}).\n"
                )
        part.rename(out)
    except (OSError, UserError) as error:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        elif part.is_file():
            part.unlink()
        text = str(error) if isinstance(error, UserError) else f"{out}: {error.strerror or error}"
        raise UserError(text.replace(str(part), str(out))) from None
    return made.replace(str(part), str(out))


def _new_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{out}: {error.strerror or error}; expected a folder that can be created") from None


def _served(reader: Recognizer, out: Path, name: str, data: bytes) -> str:
    """Write a folder of one file, the charset and facts about images and classes, and return the size."""
    _new_folder(out)
    (out / name).write_bytes(data)
    reader.charset.save(out / recognizer.CHARSET)
    facts = {
        "height": reader.model.height,
        "width": reader.limits.stretch,
        "least_width": LEAST,
        "vertical": reader.limits.vertical,
        "trim": reader.limits.trim,
        "invert": reader.limits.invert,
        "blank": reader.charset.blank,
        "classes": reader.charset.num_classes,
    }
    (out / recognizer.CONFIG).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return f"{len(data) / 1e6:.1f} MB"


def _facts(reader: Recognizer) -> dict[str, Any]:
    images = dataclasses.asdict(reader.limits)
    for name in ("vertical", "trim", "invert", "reread"):
        if not images[name]:
            del images[name]  # earlier versions, which do not know them, read such an export too
    del images["normalize"]  # of labels, which an exported model does not read
    return {
        "format": recognizer.FORMAT,
        "version": __version__,
        "model": recognizer.facts_of(reader.model),
        "images": images,
        "charset_hash": reader.charset.hash,
    }


def to_safetensors(reader: Recognizer, source: Path, out: Path) -> str:
    """Write a folder of ``model.safetensors``, ``config.json``, ``charset.txt`` and a model card."""
    _new_folder(out)
    arrays = recognizer.flattened(reader.variables)
    (out / recognizer.WEIGHTS).write_bytes(save(arrays, metadata={"format": recognizer.FORMAT}))
    (out / recognizer.CONFIG).write_text(json.dumps(_facts(reader), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    reader.charset.save(out / recognizer.CHARSET)
    (out / recognizer.CARD).write_text(card(reader, source), encoding="utf-8")
    return f"{sum(a.nbytes for a in arrays.values()) / 1e6:.1f} MB of weights; load it with jaxcrnn.load({str(out)!r})"


def card(reader: Recognizer, source: Path) -> str:
    """Return a model card for a model hub: that of an exported source, or one with gaps for the author to fill in."""
    written = located(source) / recognizer.CARD
    if is_exported(source) and written.is_file():
        return read_text(written)
    origin = _origin(source)
    model, characters = reader.model, "".join(reader.charset.characters[:60])
    shown = characters + (" ..." if len(reader.charset) > 60 else "")
    wide = f"{reader.limits.stretch} pixels wide" if reader.limits.stretch else "any width"
    return f"""---
library_name: jaxcrnn
pipeline_tag: image-to-text
tags:
- ocr
- text-recognition
- crnn
- jax
---

# Text-line recogniser

A CRNN (convolutional and recurrent layers, trained with CTC) that reads a single line of text from an image.

| | |
|---|---|
| characters | {len(reader.charset)}: `{shown.replace("|", " ").replace("`", " ")}` |
| backbone | {model.backbone} |
| recurrent layers | {model.recurrent} |
| input | gray, {model.height} pixels high, {wide}, black = {model.imported.black:g}, white = {model.imported.white:g} |
{f"| fine-tuned from | {origin} |" + chr(10) if origin else ""}| exported with | jaxcrnn {__version__} |

```python
import jaxcrnn

reader = jaxcrnn.load("this folder")
print(reader.recognize(["line.png"])[0].text)
```

Training data, accuracy and licence: to be added by the author.
"""


def _origin(source: Path) -> str:
    """Name what a run was fine-tuned from, without the path on this machine; empty if it was not fine-tuned."""
    if not (source / FACTS).is_file():
        return ""
    place = (open_weights(source).facts().get("init_from") or {}).get("run", "")
    return f"the pretrained weights of jaxcrnn {__version__}" if place == recognizer.PRETRAINED else Path(place).name


def function(reader: Recognizer) -> Callable[[Any, Any], Any]:
    """``(images [B,H,W,1] float32 in [-1, 1], widths [B] int32) -> (logits [B,T,C], lengths [B])``."""
    # Implementations that run on every device.
    model = CRNN(dataclasses.replace(reader.model, head="dense", conv="xla", lstm="scan"))

    def read(images: Any, widths: Any) -> tuple[Any, Any]:
        out: Any = model.apply(reader.variables, images, widths, train=False)
        return out.logits, out.lengths

    return read


def to_stablehlo(reader: Recognizer, source: Path, out: Path) -> str:
    """Write a folder of ``model.bin`` (`jax.export`, any batch and width, CPU, CUDA and TPU), charset and facts."""
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise UserError(f"{out}: StableHLO needs the package flatbuffers; install the extra 'export'") from None
    scope = jax.export.SymbolicScope([f"w >= {LEAST}"])
    shape = jax.export.symbolic_shape(f"b, {reader.model.height}, w, 1", scope=scope)
    exported = jax.export.export(jax.jit(function(reader)), platforms=["cpu", "cuda", "tpu"])(
        jax.ShapeDtypeStruct(shape, jnp.float32), jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    )
    size = _served(reader, out, "model.bin", bytes(exported.serialize()))
    return f"{size} of StableHLO for cpu, cuda and tpu; see docs/open-doors.md for a loader"


def to_onnx(reader: Recognizer, source: Path, out: Path) -> str:
    """Write a folder of ``model.onnx`` (``images [batch,H,width,1] -> logits``), charset and facts."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise UserError(f"{out}: ONNX needs the package onnx; install the extra 'onnx'") from None
    graph = onnx_graph.build(reader.model, recognizer.flattened(reader.variables))
    return _served(reader, out, "model.onnx", graph.SerializeToString()) + " of ONNX"


def to_torch_ref(reader: Recognizer, source: Path, out: Path) -> str:
    """Write a state dict for ``torch_ref.model.CRNN``."""
    model = reader.model
    plain = ModelConfig(
        model.backbone,
        model.hidden,
        model.dropout,
        model.standardize,
        model.dtype,
        model.head,
        num_classes=model.num_classes,
        blank=model.blank,
    )
    other = [
        f"{section}.{f.name}={getattr(ours, f.name)}"
        for section, ours, theirs in (("model", model, plain), ("imported", model.imported, plain.imported))
        for f in dataclasses.fields(ours)
        if f.name != "imported" and getattr(ours, f.name) != getattr(theirs, f.name)
    ]
    if model.backbone not in ("vgg", "small", "tiny"):
        other.insert(0, f"model.backbone={model.backbone}")
    if other:
        raise UserError(
            f"{source}: {', '.join(other)}: not supported by torch_ref; expected two BiLSTMs after vgg, "
            "small or tiny with defaults otherwise, or --format original for a converted run"
        )
    state = to_torch(reader.variables)
    state_dicts.write(out, state)
    return f"{len(state)} arrays for torch_ref.model.CRNN"


def to_crnn_pytorch(reader: Recognizer, source: Path, out: Path) -> str:
    """Write a state dict for crnn.pytorch's ``models/crnn.py``."""
    layout, variables = checkpoint_layouts.as_crnn_pytorch(checkpoint_layouts.fields_of(reader.model), reader.variables)
    if reader.model.blank:
        variables = reorder.classes_moved(variables, 1)
    state = checkpoint_layouts.state_of(layout, variables, {})
    state_dicts.write(out, state)
    return f"{len(state)} arrays for crnn.pytorch, blank 0"


def to_original(reader: Recognizer, source: Path, out: Path) -> str:
    """Write a state dict in the layout that a converted run was imported from."""
    run = open_untrusted(source)
    state = importer.original(run, reader.variables)
    state_dicts.write(out, state)
    return f"{len(state)} arrays in the layout of the checkpoint that {source} was converted from"


FORMATS: dict[str, Callable[[Recognizer, Path, Path], str]] = {
    "safetensors": to_safetensors,
    "stablehlo": to_stablehlo,
    "onnx": to_onnx,
    "torch": to_torch_ref,
    "crnn.pytorch": to_crnn_pytorch,
    "original": to_original,
}
