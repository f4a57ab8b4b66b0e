"""Benchmarks of this reference, driven line by line: ``python -m torch_ref.bench`` reads and writes JSON.

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

from torch_ref import ctc
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


def make_model(sizes: dict[str, Any]) -> CRNN:
    """Build a new float32 model."""
    config = ModelConfig(backbone=sizes["backbone"], hidden=sizes["hidden"], num_classes=sizes["classes"])
    return CRNN(config).to(DEVICE)


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

    def variant(fast: bool) -> Run:
        model = make_model(sizes)
        if fast:
            model.backbone.forward = torch.compile(model.backbone.forward)  # type: ignore[method-assign]
            model.head.forward = torch.compile(model.head.forward)  # type: ignore[method-assign]
        config = TrainConfig(model.config, PRESETS["ctc"], OptimConfig())
        state = [init_state(config, model)]

        def once() -> None:
            state[0], _ = train_step(config, state[0], batch)

        return in_kind(sizes, once)

    return {"torch": variant(False)} | ({"torch.compile": variant(True)} if compiled else {})


def forward(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark inference on a batch."""
    batch, model = make_batch(sizes), make_model(sizes).eval()
    return {"torch": in_kind(sizes, torch.no_grad()(lambda: model(batch.images, batch.widths)))}


def backbone(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark the convolutions, forward and backward."""
    batch, model = make_batch(sizes), make_model(sizes)

    def once() -> None:
        torch.stack(model.rows(batch.images, batch.widths)).square().sum().backward()

    return {"torch": in_kind(sizes, afresh(once, *model.parameters()))}


def bilstm(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark one bidirectional LSTM, forward and backward."""
    size = 2 * sizes["hidden"]
    layer = torch.nn.LSTM(size, sizes["hidden"], bidirectional=True, batch_first=True).to(DEVICE)
    x = torch.randn(sizes["batch"], sizes["frames"], size, device=DEVICE, requires_grad=True)
    return {"torch": in_kind(sizes, afresh(lambda: layer(x)[0].square().sum().backward(), x, *layer.parameters()))}


def _labels(sizes: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    batch = make_batch(sizes)
    return torch.full((sizes["batch"],), sizes["frames"], device=DEVICE), batch.labels, batch.label_lengths


def loss(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark CTC on logits, forward and backward."""
    logits = torch.randn(sizes["batch"], sizes["frames"], sizes["classes"], device=DEVICE, requires_grad=True)
    labels = _labels(sizes)
    return {"torch": afresh(lambda: ctc.ctc_loss(logits, *labels).sum().backward(), logits)}


def head(sizes: dict[str, Any], compiled: bool) -> dict[str, Run]:
    """Benchmark the linear layer with CTC and the argmax, forward and backward."""
    layer = torch.nn.Linear(2 * sizes["hidden"], sizes["classes"]).to(DEVICE)
    x = torch.randn(sizes["batch"], sizes["frames"], 2 * sizes["hidden"], device=DEVICE, requires_grad=True)
    labels = _labels(sizes)

    def once() -> Tensor:
        logits = layer(x)
        ctc.ctc_loss(logits, *labels).sum().backward()
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
    """Benchmark reading the lines of an array file in order, each batch as wide as its widest line."""
    arrays = np.load(sizes["lines"])
    images, widths = arrays["images"], arrays["widths"]
    model = make_model(sizes).eval()

    @torch.no_grad()
    def once() -> list[list[int]]:
        texts = []
        for start in range(0, len(images), sizes["batch"]):
            rows = slice(start, start + sizes["batch"])
            pixels = torch.tensor(images[rows, :, : widths[rows].max(), None], device=DEVICE).float() / 127.5 - 1
            out = model(pixels, torch.tensor(widths[rows], device=DEVICE))
            for row, length in zip(out.logits.argmax(-1).tolist(), out.lengths.tolist(), strict=True):
                before, ids = 0, []
                for best in row[:length]:
                    if best not in (0, before):
                        ids.append(best)
                    before = best
                texts.append(ids)
        return texts

    return {"torch": once}


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
