"""Benchmarks of PyTorch, driven line by line: ``python -m torch_ref.bench`` reads and writes JSON.

The variant ``torch`` is idiomatic, fast PyTorch (`torch_ref.idiomatic`), and ``reference`` the readable reference.
``{"case": NAME, "sizes": {...}, "compile": false}`` prepares a case and returns the duration in seconds of the first
run of each of its variants; ``{"time": VARIANT}`` runs a variant once more; ``{"peak": true}`` returns the peak memory
so far. Another program can therefore interleave its own runs with these.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from resource import RUSAGE_SELF, getrusage
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torch_ref import idiomatic
from torch_ref.model import CRNN, ModelConfig
from torch_ref.train import PRESETS, OptimConfig, TrainConfig, init_state, train_step
from torch_ref.types import Batch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Run = Callable[[], object]


def make_batch(sizes: dict[str, Any]) -> Batch:
    """Make a batch of random lines, all as wide as the batch."""
    rng, size, classes = np.random.default_rng(0), sizes["batch"], sizes["classes"]
    images = rng.uniform(-1, 1, (size, 32, sizes["width"], 1)).astype(np.float32)
    labels = rng.integers(1, classes, (size, sizes["slots"]))
    arrays = images, np.full(size, sizes["width"]), labels, np.full(size, sizes["slots"])
    return Batch(*(torch.tensor(a, device=DEVICE) for a in arrays))


def config_of(sizes: dict[str, Any]) -> ModelConfig:
    """Configure the model."""
    return ModelConfig(backbone=sizes["backbone"], hidden=sizes["hidden"], num_classes=sizes["classes"])


def make_model(sizes: dict[str, Any]) -> idiomatic.Recogniser:
    """Build a new idiomatic model in float32."""
    return idiomatic.Recogniser(config_of(sizes)).to(DEVICE)


def make_reference(sizes: dict[str, Any]) -> CRNN:
    """Build a new reference model in float32."""
    return CRNN(config_of(sizes)).to(DEVICE)


def in_kind(sizes: dict[str, Any], run: Run) -> Run:
    """Run under bfloat16 autocast unless the dtype is float32."""
    if sizes["dtype"] == "float32":
        return run

    def narrow() -> object:
        with torch.autocast(DEVICE, torch.bfloat16):
            return run()

    return narrow


def afresh(run: Run, *leaves: Tensor) -> Run:
    """Clear the gradients of the previous run first, so that no time goes into adding to them."""

    def once() -> object:
        for leaf in leaves:
            leaf.grad = None
        return run()

    return once


def step(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark a training step with plain CTC."""
    batch = make_batch(sizes)
    images = idiomatic.to_images(batch.images)

    def fast(compiled: bool) -> Run:
        model = make_model(sizes)
        if compiled:
            model.backbone.compile()
            model.head.compile()
        trainer = idiomatic.Trainer(model, OptimConfig(), bfloat16=sizes["dtype"] == "bfloat16")
        return lambda: trainer.step(images, batch.labels, batch.label_lengths)

    model = make_reference(sizes)
    config = TrainConfig(model.config, PRESETS["ctc"], OptimConfig())
    state = [init_state(config, model)]

    def reference() -> None:
        state[0], _ = train_step(config, state[0], batch)

    runs = {"torch": fast(False), "reference": in_kind(sizes, reference)}
    return runs | ({"torch.compile": fast(True)} if compiled else {})


def forward(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark inference on a batch."""
    batch, model, reference = make_batch(sizes), make_model(sizes).eval(), make_reference(sizes).eval()
    images = idiomatic.to_images(batch.images)
    runs: dict[str, Run] = {"torch": lambda: model(images), "reference": lambda: reference(batch.images, batch.widths)}
    if compiled:
        faster = torch.compile(make_model(sizes).eval())
        runs["torch.compile"] = lambda: faster(images)
    return {name: in_kind(sizes, torch.no_grad()(run)) for name, run in runs.items()}


def backbone(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark the convolutions, forward and backward."""
    images, layers = idiomatic.to_images(make_batch(sizes).images), make_model(sizes).backbone
    return {"torch": in_kind(sizes, afresh(lambda: layers(images).square().sum().backward(), *layers.parameters()))}


def bilstm(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark one bidirectional LSTM, forward and backward."""
    size = 2 * sizes["hidden"]
    layer = torch.nn.LSTM(size, sizes["hidden"], bidirectional=True).to(DEVICE)
    x = torch.randn(sizes["frames"], sizes["batch"], size, device=DEVICE, requires_grad=True)
    return {"torch": in_kind(sizes, afresh(lambda: layer(x)[0].square().sum().backward(), x, *layer.parameters()))}


def loss(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark CTC on logits, forward and backward."""
    size = sizes["frames"], sizes["batch"], sizes["classes"]
    logits, batch = torch.randn(size, device=DEVICE, requires_grad=True), make_batch(sizes)
    labels = batch.labels, batch.label_lengths
    return {"torch": afresh(lambda: idiomatic.ctc_loss(logits, *labels).backward(), logits)}


def head(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark the linear layer with CTC and the argmax, forward and backward."""
    layer = torch.nn.Linear(2 * sizes["hidden"], sizes["classes"]).to(DEVICE)
    x = torch.randn(sizes["frames"], sizes["batch"], 2 * sizes["hidden"], device=DEVICE, requires_grad=True)
    batch = make_batch(sizes)

    def once() -> Tensor:
        logits = layer(x)
        idiomatic.ctc_loss(logits, batch.labels, batch.label_lengths).backward()
        return logits.argmax(2)

    return {"torch": in_kind(sizes, afresh(once, x, *layer.parameters()))}


def center(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark the center loss of the PyTorch port and PaddleOCR: all distances, masked to one class per frame."""
    frames, classes, size = sizes["batch"] * sizes["frames"], sizes["classes"], 2 * sizes["hidden"]
    x = torch.randn(frames, size, device=DEVICE, requires_grad=True)
    centers = torch.randn(classes, size, device=DEVICE, requires_grad=True)
    labels = torch.randint(0, classes, (frames,), device=DEVICE)

    def once() -> None:
        squares = x.square().sum(1, keepdim=True) + centers.square().sum(1)[None]
        distances = torch.addmm(squares, x, centers.t(), beta=1, alpha=-2)
        kept = labels[:, None] == torch.arange(classes, device=DEVICE)[None]
        (distances * kept).clamp(1e-12, 1e12).sum().div(frames).backward()

    return {"torch, matrix": afresh(once, x, centers)}


def product(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark a large matrix product."""
    one = torch.ones(sizes["matrix"], sizes["matrix"], device=DEVICE)
    one = one if sizes["dtype"] == "float32" else one.bfloat16()
    return {"torch": lambda: one @ one}


def read(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark reading the lines of an array file in order, each batch padded to its widest line."""
    arrays = np.load(sizes["lines"])
    images, widths = arrays["images"], arrays["widths"]
    model, reference = make_model(sizes).eval(), make_reference(sizes).eval()

    def fast(images: Tensor, widths: Tensor) -> list[list[int]]:
        return model(idiomatic.to_images(images)).argmax(2).T.tolist()

    def readable(images: Tensor, widths: Tensor) -> list[list[int]]:
        out = reference(images, widths)
        best = out.logits.argmax(2).tolist()
        return [row[:length] for row, length in zip(best, out.lengths.tolist(), strict=True)]

    @torch.no_grad()
    def once(best_of: Callable[[Tensor, Tensor], list[list[int]]]) -> list[list[int]]:
        texts = []
        for start in range(0, len(images), sizes["batch"]):
            rows = slice(start, start + sizes["batch"])
            pixels = torch.tensor(images[rows, :, : widths[rows].max(), None], device=DEVICE).float() / 127.5 - 1
            for row in best_of(pixels, torch.tensor(widths[rows], device=DEVICE)):
                before, ids = 0, []
                for best in row:
                    if best not in (0, before):
                        ids.append(best)
                    before = best
                texts.append(ids)
        return texts

    return {"torch": lambda: once(fast), "reference": lambda: once(readable)}


CASES: dict[str, Callable[[dict[str, Any], bool], dict[str, Run]]] = {
    "product": product,
    "step": step,
    "forward": forward,
    "backbone": backbone,
    "bilstm": bilstm,
    "ctc": loss,
    "head": head,
    "center": center,
    "read": read,
}


def seconds(run: Run) -> float:
    """Time one run in seconds, until the device has finished."""
    began = time.perf_counter()
    run()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    """Answer requests until the input ends."""
    runs: dict[str, Run] = {}
    # As programs that are written for speed set them; JAX's products in float32 use TF32 on a GPU, too.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    threads = torch.get_num_threads()
    print(json.dumps({"version": torch.__version__, "device": DEVICE, "threads": threads}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "peak" in request:
            peak = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else 1024 * getrusage(RUSAGE_SELF).ru_maxrss
            answer: dict[str, Any] = {"peak_mb": peak / 1e6}
        elif "time" in request:
            answer = {"seconds": seconds(runs[request["time"]])}
        else:
            runs.clear()
            try:
                runs |= CASES[request["case"]](request["sizes"], request["compile"])
                answer = {"first": {name: seconds(run) for name, run in runs.items()}}
            except Exception as error:  # such as no compiler or not enough memory: report it
                answer = {"error": " ".join(str(error).split())[:200]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
