"""Reading lines with onnxruntime on CPUs: no compilation, and neither jax nor flax is imported."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxcrnn._memory import explained, is_out_of_memory
from jaxcrnn.architecture import ModelConfig
from jaxcrnn.charset import Charset
from jaxcrnn.data.images import to_float
from jaxcrnn.decoding.lines import Line, NamedLooks, is_unsure, looks_of, read_line, surest
from jaxcrnn.interop import onnx_graph, weights
from jaxcrnn.nn.layers import grid


class OnnxEngine:
    """A recogniser as an onnxruntime session in float32.

    Every line is read at its own width, without padding. Each thread reads lines of its own, with as many threads as
    this process may use processors; the session itself has none, which takes half the processor time of a session that
    splits each line among its threads, and works in processes forked later.

    Attributes:
      model: architecture of the recogniser.
    """

    def __init__(self, model: ModelConfig, variables: dict[str, Any]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised, too
        graph = onnx_graph.build(model, weights.flattened(variables)).SerializeToString()
        self.model = model
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Run the model on one line.

        Args:
          image: ``[H,w]`` uint8, of the model's height.

        Returns:
          Logits ``[T,C]`` float32; no frames if the line is too narrow.

        Raises:
          OutOfMemory: memory ran out.
        """
        if not self.model.frames(image.shape[1]):
            return np.zeros((0, self.model.num_classes), np.float32)
        about = f"reading a line of width {image.shape[1]}", "use narrower images (--max-width)"
        with explained(lambda: about):
            try:
                return self._session.run(["logits"], {"images": to_float(image)[None, :, :, None]})[0][0]
            except Exception as error:  # of a type of its own
                if is_out_of_memory(RuntimeError(str(error))):
                    raise MemoryError("an allocation failed") from None
                raise

    def lines(
        self, charset: Charset, images: Iterable[NamedLooks], *, characters: bool = False, reread: float = 0.0
    ) -> Iterator[Line]:
        """Read a stream of images, and yield the lines in their order as soon as they are read.

        Args:
          charset: charset of the model.
          images: names, and gray uint8 images ``[H,w]`` of the model's height, or several looks at a line.
          characters: whether to return the characters of each line, too.
          reread: confidence below which the further looks at a line are read, too.
        """

        def look(name: str, image: np.ndarray) -> Line:
            places = grid(self.model.backbone, image.shape[1]) if characters else None
            return read_line(self.logits(image), charset, name, places)

        def read(name: str, image: np.ndarray | Sequence[np.ndarray]) -> Line:
            first, *others = looks_of(image)
            line = look(name, first)
            if not is_unsure(line, reread):
                return line
            return surest([line, *(look(name, one) for one in others)], [one.shape[1] for one in (first, *others)])

        count = processors()
        reading: deque[Future[Line]] = deque()
        with ThreadPoolExecutor(count, "jaxcrnn-read") as pool:
            for name, image in images:
                reading.append(pool.submit(read, name, image))
                while reading and (len(reading) > 2 * count or reading[0].done()):
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
