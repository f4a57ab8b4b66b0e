"""Decoding with a beam search, with confidence and position of each character."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxcrnn import ctc, decode
from jaxcrnn.decoding import beam
from jaxcrnn.decoding.automata import Automaton
from jaxcrnn.decoding.rivals import rivals
from jaxcrnn.train import TrainConfig, eval_outputs
from jaxcrnn.types import Batch, TrainState


@dataclass(frozen=True)
class Decoder:
    """Decoding options.

    Attributes:
      width: number of prefixes of the beam search; 1 without automata is best-path (greedy) decoding.
      classes: number of most probable classes of a frame that extend prefixes.
      best: N, number of readings of each line.
      automata: lexicons and language models (`jaxcrnn.decoding.automata`).
    """

    width: int = 16
    classes: int = 24
    best: int = 1
    automata: tuple[Automaton, ...] = ()

    def read(self, config: TrainConfig, state: TrainState, batch: Batch) -> dict[str, np.ndarray]:
        """Decode a batch.

        Returns:
          ``ids [B,N,T]``, ``counts [B,N]`` and ``scores [B,N]`` of the N best texts; for each character of the best
          text its ``highest [B,T]`` probability over its frames, its ``first`` and ``last`` frame ``[B,T]``, its
          ``confidence [B,T]``, and its ``rivals [B,T,K]`` with their ``probability`` (`jaxcrnn.decoding.rivals`);
          ``blank [B]``, the mean probability of the blank, which is the confidence of an empty reading; ``loss [B]``
          and ``feasible [B]`` as in `jaxcrnn.train.eval_step`.
        """
        dense = dataclasses.replace(config, model=dataclasses.replace(config.model, head="dense"))
        blank = config.model.blank
        seen = _seen(dense, state, batch)
        texts: dict[str, Any]
        if self.width == 1 and not self.automata:
            ids, counts = decode.greedy(seen["logits"], seen["lengths"], blank=blank)
            texts = {"ids": ids[:, None], "counts": counts[:, None], "scores": np.zeros((len(ids), 1), np.float32)}
        else:
            beams = beam.search(
                seen["logits"],
                seen["lengths"],
                width=self.width,
                classes=self.classes,
                blank=blank,
                best=self.best,
                automata=self.automata,
            )
            texts = {"ids": beams.ids, "counts": beams.counts, "scores": beams.scores}
        characters = _characters(
            seen["logits"], seen["lengths"], texts["ids"][:, 0], texts["counts"][:, 0], blank=blank
        )
        return jax.device_get({**texts, **characters, "loss": seen["loss"], "feasible": seen["feasible"]})


@jax.jit
def _seen(config: TrainConfig, state: TrainState, batch: Batch) -> dict[str, Any]:
    outputs = eval_outputs(config, state, batch)
    labels = outputs.lengths, batch.labels, batch.label_lengths
    loss = ctc.ctc_loss(outputs.logits, *labels, blank=config.model.blank)
    return {
        "logits": outputs.logits,
        "lengths": outputs.lengths,
        "loss": loss,
        "feasible": ctc.is_feasible(*labels),
    }


@partial(jax.jit, static_argnames="blank")
def _characters(logits: Any, lengths: Any, ids: Any, counts: Any, *, blank: int) -> dict[str, Any]:
    characters = decode.characters(logits, lengths, ids, counts, blank=blank)
    exact = rivals(logits, lengths, ids, counts, blank=blank)
    return {
        "highest": characters.confidence,
        "first": characters.first,
        "last": characters.last,
        "confidence": exact.confidence,
        "rivals": exact.classes,
        "probability": exact.probability,
        "blank": decode.blankness(logits, lengths, blank=blank),
    }
