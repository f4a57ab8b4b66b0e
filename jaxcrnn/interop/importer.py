"""A run folder from another program's checkpoint."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcrnn._text import first_line
from jaxcrnn.charset import Charset
from jaxcrnn.data.config import DataConfig
from jaxcrnn.errors import UserError
from jaxcrnn.interop import checkpoint_layouts, state_dicts
from jaxcrnn.model import ModelConfig
from jaxcrnn.runs import folder
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.config import Config
from jaxcrnn.train import TrainConfig, init_state, state_shapes


def import_checkpoint(
    source: Path, out: Path, charset: Charset, *, blank: str = "first", height: int = 32, width: int = 0,
    black: float = -1.0, white: float = 1.0, pools: str = "",
) -> list[str]:  # fmt: skip
    """Make a run folder from another program's checkpoint.

    Args:
      source: checkpoint of PyTorch or safetensors.
      out: run folder to make.
      charset: characters in the order of their classes.
      blank: position of the model's blank, ``"first"`` or ``"last"``.
      height: height of the model's images in pixels.
      width: width in pixels that lines are stretched to; 0 keeps the ratio of width and height.
      black: value of a black pixel.
      white: value of a white pixel.
      pools: pooling of a sequential model (`jaxcrnn.interop.checkpoint_layouts.recognise`).

    Returns:
      Lines of text that describe the model and what was assumed about it.

    Raises:
      UserError: the checkpoint is damaged, has an unknown layout or does not fit the charset, or ``out`` exists.
    """
    state = state_dicts.read(source)
    _check_floats(source, state)
    try:
        layout, variables, counters = converted(
            state, charset, height=height, pools=pools, black=black, white=white, blank=blank
        )
    except UserError as error:
        raise UserError(f"{source}: {error}{state_dicts.hint(state)}") from None
    except (IndexError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:  # too few axes
        raise UserError(f"{source}: shapes that no such model has ({first_line(error)[:100]})") from None
    if other := _other_floats(state):
        layout.assumed.append(f"weights of {', '.join(other)} are kept as float32")
    model = ModelConfig(**{name: value for name, value in layout.model.items() if name != "num_classes"})
    config = Config(model=model, imported=model.imported, data=DataConfig(stretch=width))
    facts = {
        "converted": {
            "checkpoint": str(source.resolve()), "layout": layout.name, "blank": blank, "counters": counters,
            "names": layout.names._asdict(),
        }
    }  # fmt: skip
    made = folder.create(out, config, charset, facts)
    try:
        with Checkpoints(made.folder / folder.CHECKPOINTS, 1) as checkpoints:
            checkpoints.save(init_state(made.train_config, jax.random.key(0), variables=variables), {}, None)
    except UserError:
        shutil.rmtree(made.folder, ignore_errors=True)
        raise
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    shape = "as wide as they are" if not width else f"stretched to {width} px"
    color = "gray" if model.imported.colors == 1 else "gray, three times over: the weights are for color"
    return [
        f"{source}: {layout.name}, {len(state)} arrays, each used once; {count:,} parameters",
        f"  {model.backbone}, then {model.recurrent}; {charset.num_classes} classes",
        *(f"  assumed: {line}" for line in layout.assumed),
        f"  images {model.height} px high, {shape}, {color}, black {model.imported.black:g} and white "
        f"{model.imported.white:g} (--height, --width, --black, --white)",
    ]


def _check_floats(source: Path, state: Mapping[str, np.ndarray]) -> None:
    strange = [name for name, a in state.items() if a.dtype.kind != "f" and not name.endswith("num_batches_tracked")]
    if strange:
        kind = state[strange[0]].dtype
        raise UserError(f"{source}: {strange[0]} is {kind}; expected floating point numbers")


def _other_floats(state: Mapping[str, np.ndarray]) -> list[str]:
    """Floating-point types other than float32."""
    return sorted({str(a.dtype) for a in state.values() if a.dtype.kind == "f"} - {"float32"})


def converted(
    state: Mapping[str, np.ndarray], charset: Charset, *, height: int = 32, pools: str = "", black: float = -1.0,
    white: float = 1.0, blank: str = "first",
) -> tuple[checkpoint_layouts.Layout, dict[str, Any], dict[str, int]]:  # fmt: skip
    """The variables of a state dict.

    Args:
      state: names and arrays.
      charset: its characters, in the order of their classes.
      height: rows of the images that the model takes.
      pools: of a sequential model (`jaxcrnn.interop.checkpoint_layouts.recognise`).
      black: what a black pixel is to it.
      white: what a white one is.
      blank: where its blank is; ``"last"`` is moved to the first place.

    Returns:
      What was found, with the model's arguments; ``{"params": ..., "batch_stats": ...}``; and the counters of batches.

    Raises:
      UserError: an unknown layout, a key missing or left over, a shape or a number of classes that does not fit.
    """
    layout = checkpoint_layouts.recognise(state, height=height, pools=pools)
    if layout.model["num_classes"] != charset.num_classes:
        raise UserError(f"{layout.model['num_classes']} classes, {layout.names.head}.weight says; the charset's "
                        f"{len(charset)} characters and the blank are {charset.num_classes}")  # fmt: skip
    imported = dataclasses.replace(layout.model["imported"], black=black, white=white)
    layout.model.update(height=height, imported=imported)
    model = ModelConfig(**layout.model)
    variables, counters = checkpoint_layouts.variables_of(
        layout, {k: np.asarray(a, np.float32) if a.dtype.kind == "f" else a for k, a in state.items()}
    )
    _check_shapes(layout, state, variables, model)
    if blank == "last":
        variables = checkpoint_layouts.classes_moved(variables, 1)
    return layout, variables, counters


def _check_shapes(
    layout: checkpoint_layouts.Layout, state: Mapping[str, np.ndarray], variables: Mapping[str, Any], model: ModelConfig
) -> None:
    shapes = state_shapes(TrainConfig(model))
    expected = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    known = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(expected)}
    keys = {path: key for key, path, _ in checkpoint_layouts.table(layout, state)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables)):
        names = tuple(str(part.key) for part in path)
        wanted = known.pop(jax.tree_util.keystr(path), None)
        if wanted != leaf.shape:
            raise UserError(f"{layout.name}: {keys[names]} makes {list(leaf.shape)}; expected "
                            f"{'none' if wanted is None else list(wanted)} in such a model of {model.height} rows "
                            "(--height)")  # fmt: skip
    if known:
        raise UserError(f"{layout.name}: no key makes {next(iter(known))}")


def saved_layout(run: folder.Run) -> tuple[checkpoint_layouts.Layout, dict[str, int], str] | None:
    """Where the weights of a converted run came from: layout, counters, the blank's place; None for other runs."""
    facts = run.facts().get("converted")
    if not facts:
        return None
    given = facts["names"]
    convolutions = tuple(one if isinstance(one, str) else (one[0], one[1]) for one in given["convolutions"])
    names = checkpoint_layouts.Names(convolutions, tuple(given["recurrent"]), given["head"])
    model = checkpoint_layouts.fields_of(run.train_config.model)
    return checkpoint_layouts.Layout(facts["layout"], model, names, []), facts["counters"], facts["blank"]


def original(run: folder.Run, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict in the layout that a converted run came in.

    Args:
      run: made by ``jaxcrnn convert``.
      variables: ``{"params": ..., "batch_stats": ...}``, as they are now.

    Raises:
      UserError: the run was not converted from anything.
    """
    found = saved_layout(run)
    if found is None:
        raise UserError(f"{run.folder}: was not made by 'jaxcrnn convert'; expected a run that was")
    layout, counters, blank = found
    if blank == "last":
        variables = checkpoint_layouts.classes_moved(variables, -1)
    return checkpoint_layouts.state_of(layout, variables, counters)
