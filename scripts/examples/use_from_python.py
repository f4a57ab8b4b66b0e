"""Read lines from Python with the bundled pretrained weights: batches, confidences and positions of characters.

python scripts/examples/use_from_python.py [IMAGE ...]
"""

import sys
import time

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import jaxcrnn


def drawn(text):
    """Return a Pillow image of a text, in case no images are given."""
    font = ImageFont.load_default(30)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    image = Image.new("L", (right - left + 12, bottom - top + 12), 255)
    ImageDraw.Draw(image).text((6 - left, 6 - top), text, font=font, fill=0)
    return image


if __name__ == "__main__":
    # A run folder or a folder written by `jaxcrnn export --format safetensors` is loaded in the same way.
    reader = jaxcrnn.load()
    print(f"{len(reader.charset)} characters, backbone {reader.model.backbone}, {reader.model.height} pixels high")

    # Paths, bytes, arrays and Pillow images can be mixed; each one holds a single line of text.
    images = sys.argv[1:] or [drawn(text) for text in ("jaxcrnn", "Invoice 4271", "2026-11-28", "Total: 96.70")]
    for line in reader.recognize(images):
        print(f"{line.name}: {line.text!r}, confidence {line.confidence:.3f}")

    # A confidence is the probability of the best path: sort by it to check the doubtful lines by hand.
    noisy = [
        np.asarray(image if isinstance(image, Image.Image) else Image.open(image).convert("L")) for image in images
    ]
    rng = np.random.default_rng(0)
    noisy = [np.clip(array + rng.normal(0, 60, array.shape), 0, 255).astype(np.uint8) for array in noisy]
    print("with noise, the least confident first:")
    for line in sorted(reader.recognize(noisy), key=lambda line: line.confidence):
        print(f"  {line.text!r}, confidence {line.confidence:.3f}")

    # Lines of similar widths share a compiled program: the second call is faster.
    many = images * max(1, 16 // len(images))
    for call in ("first", "second"):
        started = time.perf_counter()
        reader.recognize(many, batch_size=8)
        milliseconds = (time.perf_counter() - started) / len(many) * 1000
        print(f"{call} call, {len(many)} lines in batches of 8: {milliseconds:.0f} ms a line")
