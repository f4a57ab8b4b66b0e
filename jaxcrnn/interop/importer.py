"""Importing another program's checkpoint as a run folder."""

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
from jaxcrnn.interop import checkpoint_layouts, map_template, name_maps, reorder, state_dicts
from jaxcrnn.interop.exported import WEIGHTS, states_format
from jaxcrnn.model import ModelConfig
from jaxcrnn.runs import folder
from jaxcrnn.runs.checkpoint import Checkpoints
from jaxcrnn.runs.config import Config
from jaxcrnn.train import TrainConfig, init_state, state_shapes


class NeedsMap(UserError):
    """A checkpoint with names of its own; ``template`` is a map to fill in (`jaxcrnn.interop.name_maps`)."""

    def __init__(self, message: str, template: str) -> None:
        super().__init__(message)
        self.template = template


def import_checkpoint(
    source: Path,
    out: Path,
    charset: Charset,
    *,
    blank: str = "first",
    height: int = 32,
    width: int = 0,
    black: float = -1.0,
    white: float = 1.0,
    pools: str = "",
    key: str = "",
    names: Path | None = None,
) -> list[str]:
    """Import another program's checkpoint as a run folder.

    Args:
      source: PyTorch or safetensors checkpoint.
      out: run folder to create.
      charset: characters in the order of their classes.
      blank: position of the model's blank, ``"first"`` or ``"last"``.
      height: height of the model's images in pixels.
      width: width in pixels that lines are stretched to; 0 keeps the aspect ratio.
      black: value of a black pixel.
      white: value of a white pixel.
      pools: pooling of a sequential model (`jaxcrnn.interop.checkpoint_layouts.recognise`).
      key: keys of the state dict in the file (`jaxcrnn.interop.state_dicts.load`).
      names: map of names (`jaxcrnn.interop.name_maps`), for a checkpoint with names of its own.

    Returns:
      Lines of text that describe the model and the assumptions about it.

    Raises:
      UserError: the checkpoint is corrupted, has an unknown layout or does not match the charset, or ``out`` exists.
      NeedsMap: the checkpoint has names of its own; the exception has a map to fill in.
    """
    own = source.parent if source.name == WEIGHTS else source
    if states_format(own):
        raise UserError(
            f"{source}: is a model that jaxcrnn exported, which needs no conversion; fine-tune it with train "
            f"--init-from {own}"
        )
    weights = state_dicts.load(source, key)
    state, notes, layout, renamed = weights.arrays, weights.notes, None, None
    if names:
        renamed = name_maps.read(names, state, source)
        layout = name_maps.layout(renamed, names, charset.num_classes, height=height, pools=pools)
        state = renamed.arrays
        notes = [*notes, *([f"unused by {names}: {', '.join(renamed.unused)}"] if renamed.unused else [])]
    _check_floats(source, state)
    try:
        layout, variables, counters = converted(
            state, charset, height=height, pools=pools, black=black, white=white, blank=blank, layout=layout
        )
    except checkpoint_layouts.UnknownLayout as error:
        raise _needs_map(source, error, weights, charset) from None
    except UserError as error:
        raise UserError(f"{source}: {error}{state_dicts.hint(weights)}") from None
    except (IndexError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError) as error:  # too few axes
        raise UserError(f"{source}: shapes do not match the layout ({first_line(error)[:100]})") from None
    if other := _other_floats(state):
        layout.assumed.append(f"{', '.join(other)} weights are converted to float32")
    recorded = {"blank": blank, "counters": counters, "map": renamed.names if renamed else None}
    made = _saved(source, out, layout, variables, charset, width, recorded)
    return [
        f"{source}: {layout.name} layout, {len(state)} arrays, each used once; {_count(variables):,} parameters",
        *(f"  {note}" for note in notes),
        *_described(made.config.model, layout, charset, width),
    ]


def _saved(
    source: Path,
    out: Path,
    layout: checkpoint_layouts.Layout,
    variables: dict[str, Any],
    charset: Charset,
    width: int,
    recorded: dict[str, Any],
) -> folder.Run:
    """Create the run folder with its only checkpoint; an error leaves nothing behind."""
    model = ModelConfig(**{name: value for name, value in layout.model.items() if name != "num_classes"})
    config = Config(model=model, imported=model.imported, data=DataConfig(stretch=width))
    facts = {
        "converted": {
            "checkpoint": str(source.resolve()),
            "layout": layout.name,
            "names": layout.names._asdict(),
            "rows_moved": True,
            **recorded,
        }
    }
    made = folder.create(out, config, charset, facts)
    try:
        with Checkpoints(made.folder / folder.CHECKPOINTS, 1) as checkpoints:
            checkpoints.save(init_state(made.train_config, jax.random.key(0), variables=variables), {}, None)
    except UserError:
        shutil.rmtree(made.folder, ignore_errors=True)
        raise
    return made


def _count(variables: Mapping[str, Any]) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def _described(model: ModelConfig, layout: checkpoint_layouts.Layout, charset: Charset, width: int) -> list[str]:
    """Describe the model, and the assumptions about it."""
    shape = "of any width" if not width else f"stretched to {width} px"
    color = "gray" if model.imported.colors == 1 else "gray repeated in three channels (the weights expect color)"
    return [
        f"  backbone {model.backbone}, recurrent layers {model.recurrent}, {charset.num_classes} classes",
        *(f"  assumed: {line}" for line in layout.assumed),
        f"  assumed images: {model.height} px high, {shape}, {color}, black {model.imported.black:g} and white "
        f"{model.imported.white:g} (--height, --width, --black, --white)",
    ]


def _needs_map(source: Path, error: UserError, weights: state_dicts.Weights, charset: Charset) -> UserError:
    """Return the error for a checkpoint of unknown layout, with a map to fill in if it is a CRNN."""
    expected = f"expected {checkpoint_layouts.EXPECTED}"
    if hint := state_dicts.hint(weights):
        return UserError(f"{source}: {error}{hint}; {expected}")
    made = map_template.template(weights.arrays, charset.num_classes)
    if made.lacking:
        return UserError(f"{source}: {error}; {made.lacking}; {expected}")
    return NeedsMap(
        f"{source}: {error}; a map of its names is on standard output, with {made.filled} of {made.total} lines filled "
        f"in: save it to a file, check it, and pass it with --map FILE; without a map, {expected}",
        made.text,
    )


def _check_floats(source: Path, state: Mapping[str, np.ndarray]) -> None:
    invalid = [name for name, a in state.items() if a.dtype.kind != "f" and not name.endswith("num_batches_tracked")]
    if invalid:
        kind = state[invalid[0]].dtype
        raise UserError(f"{source}: {invalid[0]} is {kind}; expected floating-point numbers")


def _other_floats(state: Mapping[str, np.ndarray]) -> list[str]:
    """List the floating-point types other than float32."""
    return sorted({str(a.dtype) for a in state.values() if a.dtype.kind == "f"} - {"float32"})


def converted(
    state: Mapping[str, np.ndarray],
    charset: Charset,
    *,
    height: int = 32,
    pools: str = "",
    black: float = -1.0,
    white: float = 1.0,
    blank: str = "first",
    layout: checkpoint_layouts.Layout | None = None,
) -> tuple[checkpoint_layouts.Layout, dict[str, Any], dict[str, int]]:
    """Convert a state dict to variables.

    Args:
      state: names and arrays.
      charset: characters in the order of their classes.
      height: height of the model's images in pixels.
      pools: pooling of a sequential model (`jaxcrnn.interop.checkpoint_layouts.recognise`).
      black: value of a black pixel.
      white: value of a white pixel.
      blank: position of the blank; ``"last"`` is moved to the first class.
      layout: layout of the state dict; None to detect it.

    Returns:
      The layout, with the model's arguments; ``{"params": ..., "batch_stats": ...}``; and the batch counters.

    Raises:
      UserError: the layout is unknown, a key is missing or unexpected, or a shape or the number of classes is wrong.
    """
    layout = layout or checkpoint_layouts.recognise(state, height=height, pools=pools)
    if layout.model["num_classes"] != charset.num_classes:
        raise UserError(
            f"{layout.names.head}.weight has {layout.model['num_classes']} classes; expected "
            f"{charset.num_classes} (the charset's {len(charset)} characters and the blank)"
        )
    imported = dataclasses.replace(layout.model["imported"], black=black, white=white)
    layout.model.update(height=height, imported=imported)
    model = ModelConfig(**layout.model)
    variables, counters = checkpoint_layouts.variables_of(
        layout, {k: np.asarray(a, np.float32) if a.dtype.kind == "f" else a for k, a in state.items()}
    )
    _check_shapes(layout, state, variables, model)
    variables = reorder.rows_moved(layout, variables)
    if blank == "last":
        variables = reorder.classes_moved(variables, 1)
    return layout, variables, counters


def _check_shapes(
    layout: checkpoint_layouts.Layout, state: Mapping[str, np.ndarray], variables: Mapping[str, Any], model: ModelConfig
) -> None:
    shapes = state_shapes(TrainConfig(model))
    expected = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    missing = {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(expected)}
    keys = {path: key for key, path, _ in checkpoint_layouts.table(layout, state)}
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(variables)):
        names = tuple(str(part.key) for part in path)
        shape = missing.pop(jax.tree_util.keystr(path), None)
        if shape != leaf.shape:
            raise UserError(
                f"{layout.name}: {keys[names]} gives shape {list(leaf.shape)}; expected "
                f"{'none' if shape is None else list(shape)} for images of height {model.height} "
                "(--height)"
            )
    if missing:
        raise UserError(f"{layout.name}: no key gives {next(iter(missing))}")


def saved_layout(run: folder.Run) -> tuple[checkpoint_layouts.Layout, dict[str, Any]] | None:
    """Return the layout of a converted run, and what else its import recorded; None for other runs."""
    facts = run.facts().get("converted")
    if not facts:
        return None
    saved = facts["names"]
    convolutions = tuple(one if isinstance(one, str) else (one[0], one[1]) for one in saved["convolutions"])
    names = checkpoint_layouts.Names(convolutions, tuple(saved["recurrent"]), saved["head"])
    model = checkpoint_layouts.fields_of(run.train_config.model)
    return checkpoint_layouts.Layout(facts["layout"], model, names, []), facts


def original(run: folder.Run, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Convert the current variables of a run back to the layout that it was imported from.

    Args:
      run: run made by ``jaxcrnn convert``.
      variables: ``{"params": ..., "batch_stats": ...}``.

    Raises:
      UserError: the run was not made by ``jaxcrnn convert``.
    """
    saved = saved_layout(run)
    if saved is None:
        raise UserError(f"{run.folder}: has no original layout; expected a run made by 'jaxcrnn convert'")
    layout, facts = saved
    if facts["blank"] == "last":
        variables = reorder.classes_moved(variables, -1)
    if facts.get("rows_moved"):  # not by version 0.1
        variables = reorder.rows_moved(layout, variables, back=True)
    state = checkpoint_layouts.state_of(layout, variables, facts["counters"])
    names = facts.get("map") or {}
    return {names.get(ours, ours): value for ours, value in state.items()}
