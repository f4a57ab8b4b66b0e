"""Weights to start the training of the pretrained recogniser from, and those to export."""

import argparse
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.data.images import Limits
from jaxcrnn.errors import UserError
from jaxcrnn.interop.exporters import to_safetensors
from jaxcrnn.interop.recognizer import Recognizer, load
from jaxcrnn.model import ModelConfig
from jaxcrnn.nn.imported import Imported
from jaxcrnn.runs.compile import for_device, is_nvidia
from jaxcrnn.runs.finer_lines import enlarged

READING = Limits(trim=True, reread=0.97)  # how weights trained from nothing read, as those of the package do


def model_of(args: argparse.Namespace, charset: Charset) -> tuple[ModelConfig, Any, Limits]:
    """The model to train, the variables to start from or None, and how the result will read images."""
    start, limits = None, READING
    if args.init:
        reader = load(args.init)
        if reader.charset.hash != charset.hash:
            raise UserError(
                f"--init {args.init}: has other characters ({len(reader.charset)}) than {args.data / 'charset.txt'} "
                f"({len(charset)}); expected the same in the same order"
            )
        model, start, limits = reader.model, reader.variables, reader.limits
    else:
        model = ModelConfig(
            backbone="vgg",
            hidden=args.hidden,
            dropout=0.1,
            standardize=True,
            num_classes=charset.num_classes,
            blank=charset.blank,
            imported=Imported(channels=args.channels),
        )
    if args.height not in (None, model.height):
        before, (model, limits) = model, finer(args, model, limits)
        start = start and enlarged(start, before, model)
    model = dataclasses.replace(model, dtype="bfloat16" if is_nvidia(jax.devices()[0]) else "float32")
    return for_device(model), start, limits


def finer(args: argparse.Namespace, model: ModelConfig, limits: Limits) -> tuple[ModelConfig, Limits]:
    """The same model, and how it reads, for lines of twice the height."""
    if (model.backbone, model.height, args.height) != ("vgg", 32, 64):
        raise UserError(
            f"--height {args.height}: --init {args.init} has the backbone {model.backbone} for lines of {model.height} "
            "pixels; expected no --height, or --height 64 and the backbone vgg for lines of 32"
        )
    return (
        dataclasses.replace(model, backbone="vgg-fine", height=64),
        dataclasses.replace(limits, max_width=2 * limits.max_width),
    )


def export(reader: Recognizer, out: Path) -> str:
    """Writes a recogniser in half precision as ``out / recognizer``, which appears once it is complete."""
    # Variances of the batch statistics may lie outside the range of float16.
    params = jax.tree.map(lambda a: np.asarray(a, np.float16), reader.variables["params"])
    plain = dataclasses.replace(reader.model, dtype="float32", conv="auto", lstm="auto", ctc="auto")
    reader = dataclasses.replace(reader, model=plain, variables=reader.variables | {"params": params})
    part = out / "recognizer.part"
    shutil.rmtree(part, ignore_errors=True)
    made = to_safetensors(reader, out, part)
    part.rename(out / "recognizer")
    return made.replace(str(part), str(out / "recognizer"))
