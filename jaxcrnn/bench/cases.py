"""Benchmark cases of `jaxcrnn bench`; each prepares its variants, and the runner interleaves them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcrnn import centers, ctc, diagnostics, losses, objective
from jaxcrnn.assign import predicted
from jaxcrnn.augment import AugmentConfig
from jaxcrnn.decoding.evaluate import run_read
from jaxcrnn.kernels.dense_head import dense_logits
from jaxcrnn.kernels.logits import FactoredLogits, as_logits, factored
from jaxcrnn.model import DTYPES, ModelConfig
from jaxcrnn.nn.backbones import HEIGHT, Backbone, Block, Layer, frames, layers_of, rows
from jaxcrnn.nn.lstm import BiLSTM
from jaxcrnn.objective import LossConfig
from jaxcrnn.optim import OptimConfig
from jaxcrnn.parallel.mesh import MeshConfig, everywhere, make_mesh
from jaxcrnn.runs.compile import compile_step, for_device, for_reading, is_nvidia
from jaxcrnn.train import TrainConfig, init_state
from jaxcrnn.types import Assignment, Batch, Outputs

KEY = jax.random.key(0)


@dataclass(frozen=True)
class Sizes:
    """Sizes of the model and the data.

    Attributes:
      batch: batch size B.
      width: image width W in pixels.
      classes: number of classes C.
      slots: number of label slots L, all of them used.
      hidden: hidden size H of each LSTM direction.
      backbone: backbone of the model.
      dtype: dtype of the model.
      lstm: LSTM implementation (`jaxcrnn.model.ModelConfig.lstm`).
      ctc: implementation of CTC (`jaxcrnn.model.ModelConfig.ctc`).
      matrix: size of the square matrices whose product measures the peak rate of the machine.
      data: label file for the cases that read lines; empty for rendered lines.
      quick: compile the step as with `jaxcrnn.runs.trainer.LoopConfig.quick_compile`.
    """

    batch: int = 32
    width: int = 280
    classes: int = 6941
    slots: int = 10
    hidden: int = 256
    backbone: str = "vgg"
    dtype: str = "float32"
    lstm: str = "auto"
    ctc: str = "auto"
    matrix: int = 2048
    data: str = ""
    quick: bool = False

    @property
    def frames(self) -> int:
        """Number of frames T."""
        return int(frames(self.backbone, self.width))

    @property
    def height(self) -> int:
        """Height of the images in pixels: twice the usual one for the backbone that is made for it."""
        return HEIGHT if rows(self.backbone, HEIGHT) > 0 else 2 * HEIGHT

    def asdict(self) -> dict[str, Any]:
        """Return all sizes, including T."""
        return {**asdict(self), "frames": self.frames}


class Variant(NamedTuple):
    """One implementation of a case.

    Attributes:
      run: function that runs the case once and waits for the device.
      compile_seconds: compilation time, None if nothing was compiled.
      temporary_bytes: bytes of temporary buffers of the compiled program, None if unknown.
      program: the compiled program, None if there is none.
    """

    run: Callable[[], Any]
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    program: Any = None


Variants = dict[str, Variant]


def compiled(function: Callable[..., Any], *arrays: Any) -> Variant:
    """Compile a function of arrays to a variant."""
    began = time.perf_counter()
    program = jax.jit(function).lower(*arrays).compile()
    seconds = time.perf_counter() - began
    return Variant(lambda: jax.block_until_ready(program(*arrays)), seconds, _temporary(program), program)


def _temporary(program: Any) -> int | None:
    memory = program.memory_analysis()
    return None if memory is None else int(memory.temp_size_in_bytes)


def flops(s: Sizes, backward: bool = True) -> float:
    """Count the floating-point operations of the matrix products of a step, or of inference without ``backward``."""
    total, height, width, size = 0.0, s.height, s.width, 1
    layers: list[Layer] = []
    for one in layers_of(s.backbone):
        layers += [Layer(one.features)] * 2 if isinstance(one, Block) else [one]
    for layer in layers:
        rows, columns = layer.kernel
        if layer.valid:
            height, width = height - rows + 1, width + 2 * layer.around - columns + 1
        height, width = (-(-n // step) for n, step in zip((height, width), layer.step, strict=True))
        once = 2.0 * s.batch * height * width * rows * columns * size * layer.features
        total += once * (1 if not backward else 2 if size == 1 else 3)  # pixels need no gradient
        size = layer.features
        if layer.pool:
            height, width = height // layer.pool[0], (width + 2 * layer.pad - layer.pool[1]) // layer.stride + 1
    rest = 0.0
    for inputs in (size * height, 2 * s.hidden):
        rest += 2.0 * s.batch * s.frames * (inputs + s.hidden) * 8 * s.hidden
    rest += 2.0 * s.batch * s.frames * 2 * s.hidden * s.classes
    return total + rest * (3 if backward else 1)


def batch_of(s: Sizes) -> Batch:
    """Create a batch of random lines, all of the full width."""
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (s.batch, s.height, s.width, 1)).astype(np.float32)
    labels = rng.integers(1, s.classes, (s.batch, s.slots)).astype(np.int32)
    return Batch(
        *map(jnp.asarray, (images, np.full(s.batch, s.width, np.int32), labels, np.full(s.batch, s.slots, np.int32)))
    )


def config_of(s: Sizes, preset: str = "ctc", kind: str = "dense") -> TrainConfig:
    """Configure a step without augmentation and dropout, which the reference does not have."""
    model = ModelConfig(
        s.backbone,
        s.hidden,
        0.0,
        dtype=s.dtype,
        lstm=s.lstm,
        ctc=s.ctc,
        head=kind,
        height=s.height,
        num_classes=s.classes,
    )
    loss = LossConfig(preset, start="normal" if preset == "flow2" else None)
    return TrainConfig(model, loss, OptimConfig(), AugmentConfig(probability=0.0))


def product(s: Sizes) -> Variants:
    """Multiply two large matrices, to measure the peak rate of the machine."""
    one = jnp.ones((s.matrix, s.matrix), DTYPES[s.dtype])
    return {"jaxcrnn": compiled(lambda one: one @ one, one)}


def step(s: Sizes, presets: tuple[str, ...] = ("ctc",), kinds: tuple[str, ...] = ("dense",)) -> Variants:
    """Run a whole training step, for several presets and heads."""
    batch, out = batch_of(s), {}
    for kind in kinds:
        for preset in presets:
            config = config_of(s, preset, kind)
            mesh = make_mesh(MeshConfig(1), jax.devices()[:1])
            state, inputs = jax.device_put(([init_state(config, KEY)], (batch, KEY)), everywhere(mesh))
            began = time.perf_counter()
            program = compile_step(config, state[0], inputs[0], inputs[1], mesh, quick=s.quick)
            seconds = time.perf_counter() - began

            def once(state: Any = state, program: Any = program, inputs: Any = inputs) -> None:
                state[0], info = program(state[0], *inputs)
                jax.block_until_ready((state[0], info))

            name = "jaxcrnn" if (preset, kind) == ("ctc", "dense") else preset if kind == "dense" else kind
            out[name] = Variant(once, seconds, _temporary(program), program)
    return out


def flows(s: Sizes) -> Variants:
    """Run whole steps of every preset, and of plain CTC with the fused head."""
    return step(s, tuple(objective.PRESETS)) | step(s, kinds=("fused",))


def forward(s: Sizes) -> Variants:
    """Read a batch."""
    config, batch = for_reading(config_of(s)), batch_of(s)
    state = init_state(config, KEY)
    return {"jaxcrnn": Variant(lambda: jax.block_until_ready(run_read(config, state, batch)))}


def backbone(s: Sizes) -> Variants:
    """Run the backbone forward and backward."""
    batch = batch_of(s)
    winograd = for_device(config_of(s).model).conv == "winograd"
    layers = Backbone(s.backbone, DTYPES[s.dtype], winograd=winograd)
    variables = layers.init(KEY, batch.images, batch.widths, False)
    stats = {"batch_stats": variables.get("batch_stats", {})}

    def total(params: Any, batch: Batch) -> jax.Array:
        (x, _), _ = layers.apply({"params": params, **stats}, batch.images, batch.widths, True, mutable=["batch_stats"])
        return jnp.square(x.astype(jnp.float32)).sum()

    return {"jaxcrnn": compiled(jax.grad(total), variables["params"], batch)}


def bilstm(s: Sizes) -> Variants:
    """Run one bidirectional LSTM forward and backward, on an NVIDIA GPU also the other implementations."""
    x = jax.random.normal(KEY, (s.batch, s.frames, 2 * s.hidden), DTYPES[s.dtype])
    lengths = jnp.full(s.batch, s.frames)
    kind = for_device(config_of(s).model).lstm
    layers = {"jaxcrnn": BiLSTM(s.hidden, DTYPES[s.dtype], kind=kind)}
    params = layers["jaxcrnn"].init(KEY, x, lengths)
    if is_nvidia(jax.devices()[0]):
        others = [name for name in ("scan", "cudnn") if name != kind]
        layers |= {name: BiLSTM(s.hidden, DTYPES[s.dtype], kind=name) for name in others}

    def total(layer: BiLSTM, params: Any, x: jax.Array) -> jax.Array:
        return jnp.square(layer.apply(params, x, lengths).astype(jnp.float32)).sum()  # type: ignore[union-attr]

    return {
        name: compiled(jax.grad(partial(total, layer), argnums=(0, 1)), params, x) for name, layer in layers.items()
    }


def _labels(s: Sizes) -> tuple[jax.Array, jax.Array, jax.Array]:
    batch = batch_of(s)
    return jnp.full(s.batch, s.frames), batch.labels, batch.label_lengths


def _with_optax(logits: jax.Array, lengths: jax.Array, labels: jax.Array, label_lengths: jax.Array) -> jax.Array:
    empty, unused = (
        (jnp.arange(size)[None, :] >= used[:, None]).astype(jnp.float32)
        for size, used in ((logits.shape[1], lengths), (labels.shape[1], label_lengths))
    )
    return optax.ctc_loss(logits, empty, labels, unused)


def loss(s: Sizes) -> Variants:
    """Compute CTC of fixed logits forward and backward, and for comparison a softmax over them, the lower bound."""
    logits, labels = jax.random.normal(KEY, (s.batch, s.frames, s.classes)), _labels(s)
    recursion = for_device(config_of(s).model).ctc
    return {
        "jaxcrnn": compiled(jax.value_and_grad(lambda x: ctc.ctc_loss(x, *labels, recursion=recursion).sum()), logits),
        "optax": compiled(jax.value_and_grad(lambda x: _with_optax(x, *labels).sum()), logits),
        "softmax": compiled(jax.nn.softmax, logits),
    }


def swaps(s: Sizes, candidates: int = 8) -> Variants:
    """Compute the probabilities of all single swaps: at once, with its gradient, and by one CTC loss for each swap."""
    logits, (lengths, labels, sizes) = jax.random.normal(KEY, (s.batch, s.frames, s.classes)), _labels(s)
    others = (labels[:, :, None] + jnp.arange(candidates)) % (s.classes - 1) + 1

    def at_once(logits: jax.Array) -> jax.Array:
        return ctc.single_swaps(logits, lengths, labels, sizes, others)

    def margin(logits: jax.Array) -> jax.Array:
        return losses.swap(logits, lengths, labels, sizes, others).sum()

    def one_by_one(logits: jax.Array) -> jax.Array:
        def swapped(at: jax.Array) -> jax.Array:
            slot, number = at // candidates, at % candidates
            text = jnp.where(jnp.arange(s.slots) == slot, others[:, slot, number][:, None], labels)
            return ctc.ctc_loss(logits, lengths, text, sizes)

        return jax.lax.map(swapped, jnp.arange(s.slots * candidates))

    return {
        "jaxcrnn": compiled(at_once, logits),
        "ctc": compiled(lambda x: ctc.ctc_loss(x, lengths, labels, sizes), logits),
        "losses": compiled(one_by_one, logits),
        "swap gradient": compiled(jax.value_and_grad(margin), logits),
        "ctc gradient": compiled(jax.value_and_grad(lambda x: ctc.ctc_loss(x, lengths, labels, sizes).sum()), logits),
    }


def heads(s: Sizes) -> Variants:
    """Run the linear head with CTC and the best classes, forward and backward."""
    keys, labels, size = jax.random.split(KEY, 2), _labels(s), 2 * s.hidden
    x = jax.random.normal(keys[0], (s.batch, s.frames, size), DTYPES[s.dtype])
    kernel = jax.random.normal(keys[1], (size, s.classes)) / size**0.5
    bias = jnp.zeros(s.classes)

    def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        return dense_logits(x.reshape(-1, size), kernel.astype(x.dtype), bias).reshape(*x.shape[:2], -1)

    def both(make: Callable[..., Any], of: Callable[..., jax.Array]) -> Callable[..., Any]:
        def total(*arrays: jax.Array) -> Any:
            logits = make(*arrays)
            return of(logits, *labels).sum(), as_logits(logits).best()[0]

        return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)

    def chunked(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> FactoredLogits:
        return factored(x, kernel.astype(x.dtype), bias)

    ways = {"jaxcrnn": (dense, ctc.ctc_loss), "fused": (chunked, ctc.ctc_loss), "optax": (dense, _with_optax)}
    return {name: compiled(both(*way), x, kernel, bias) for name, way in ways.items()}


def center(s: Sizes) -> Variants:
    """Run each loss on fixed logits and features: plain CTC, center losses with update, and all distances."""
    keys, labels, size = jax.random.split(KEY, 2), _labels(s), 2 * s.hidden
    logits = jax.random.normal(keys[0], (s.batch, s.frames, s.classes))
    features = jax.random.normal(keys[1], (s.batch, s.frames, size))
    batch = batch_of(s)
    kernel = jnp.zeros((size, s.classes))

    def of(preset: str) -> Variant:
        config = config_of(s, preset).loss
        flow = objective.flow(config)
        state = centers.start(flow.rule, KEY, kernel)

        def total(logits: jax.Array, features: jax.Array, state: Any) -> Any:
            outputs = Outputs(logits, features, labels[0])
            loss, (info, assignment) = objective.loss_terms(flow, outputs, batch, state)
            return loss, (info | diagnostics.train_metrics(outputs, batch, assignment), assignment)

        def whole(logits: jax.Array, features: jax.Array, state: Any) -> Any:
            gradients = jax.value_and_grad(total, (0, 1), has_aux=True)
            (value, (info, assignment)), grown = gradients(logits, features, state)
            moved = objective.move_centers(flow, state, Outputs(logits, features, labels[0]), assignment)
            return value, info, grown, moved

        return compiled(whole, logits, features, state)

    def all_distances(features: jax.Array, centers: jax.Array, assignment: Assignment) -> jax.Array:
        flat = features.reshape(-1, size)
        far = jnp.square(flat).sum(1)[:, None] + jnp.square(centers).sum(1)[None] - 2 * flat @ centers.T
        kept = assignment.classes.reshape(-1)[:, None] == jnp.arange(s.classes)[None]
        return jnp.clip(jnp.where(kept, far, 0.0), losses.NEAREST, losses.FARTHEST).sum() / len(flat)

    assignment = predicted(logits, labels[0])
    grown = jax.value_and_grad(all_distances, argnums=(0, 1))
    matrix = compiled(grown, features, jax.random.normal(KEY, (s.classes, size)), assignment)
    return {name: of(name) for name in ("ctc", "flow1", "flow2", "aligned", "posterior")} | {"matrix": matrix}


CASES: dict[str, Callable[[Sizes], Variants]] = {
    "product": product,
    "step": step,
    "flows": flows,
    "forward": forward,
    "backbone": backbone,
    "bilstm": bilstm,
    "ctc": loss,
    "swaps": swaps,
    "head": heads,
    "center": center,
    "latency": forward,
}
