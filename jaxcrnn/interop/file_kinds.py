"""Files that are not checkpoints: their kind from the first bytes, and what a refused pickle contains.

Nothing in a file is executed: zip archives are listed, and pickles are disassembled.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from jaxcrnn._text import first_line, listed
from jaxcrnn.errors import UserError

EXPECTED = "expected a PyTorch or safetensors checkpoint"
CHECKPOINTS = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".tar")
INSIDE = ("state_dict", "model_state_dict", "model", "net", "weights", "ema")  # usual keys of state dicts
_MAGIC = {
    b"version https://git-lfs": "is a Git LFS pointer, not the file itself; download it with 'git lfs pull'",
    b"\x89HDF\r\n": f"is an HDF5 file (Keras or h5py); {EXPECTED}",
    b"\x1f\x8b": "is compressed with gzip; decompress it first",
    b"BZh": "is compressed with bzip2; decompress it first",
    b"\xfd7zXZ": "is compressed with xz; decompress it first",
    b"7z\xbc\xaf": "is a 7z archive; unpack it first",
    b"Rar!": "is a RAR archive; unpack it first",
    b"GGUF": f"is a GGUF file; {EXPECTED}",
    b"\x93NUMPY": f"is a single NumPy array; {EXPECTED}",
    b"\x89PNG": f"is an image; {EXPECTED}",
    b"\xff\xd8\xff": f"is an image; {EXPECTED}",
}
_MOST = 1 << 24  # bytes of a pickle that are disassembled


def check(path: Path) -> bytes:
    """Check that a file may be a checkpoint, and return its first bytes.

    Raises:
      UserError: it is missing, a folder, empty, truncated, or a file of another kind (naming the kind).
    """
    if path.is_dir():
        raise UserError(f"{path}: {_folder_kind(path)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; {EXPECTED}")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise UserError(f"{path}: empty file (0 bytes)")
    kind = next((text for magic, text in _MAGIC.items() if head.startswith(magic)), "")
    if not kind and head[:4] == b"PK\x03\x04":
        kind = _zip_kind(path)
    if not kind and head[8:9] != b"{":
        kind = _kind_of_bytes(path, head)
    if kind:
        raise UserError(f"{path}: {kind}")
    return head


def _folder_kind(folder: Path) -> str:
    if (folder / "run.json").is_file():
        return f"is a run already; read images with: jaxcrnn recognize {folder} IMAGES"
    files = sorted(file for file in folder.iterdir() if file.suffix in CHECKPOINTS)
    if len(files) == 1:
        return f"is a folder; {EXPECTED}, such as {files[0]}"
    return f"is a folder; {EXPECTED}" + (f", one of {', '.join(file.name for file in files[:5])}" if files else "")


def _kind_of_bytes(path: Path, head: bytes) -> str:
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page; download the file that the page links to"
    if path.suffix == ".onnx" or (head[0] == 8 and head[1:2] < b"\x20" and head[2:3] == b"\x12"):
        return "is an ONNX model, which lacks the names of the layers; expected the state dict it was exported from"
    if head[4:8] == b"TFL3":
        return f"is a TensorFlow Lite model; {EXPECTED}"
    if head[:1] != b"\x80" and head.isascii() and not re.search(rb"[\0-\x08\x0e-\x1f]", head):
        return f"is a text file that begins with {head.decode().split(chr(10))[0].strip()[:40]!r}; {EXPECTED}"
    return ""


def _zip_kind(path: Path) -> str:
    """Describe a zip archive that ``torch.load`` cannot read; empty for one that it can."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except Exception as error:  # a damaged archive may raise anything
        return f"is truncated or corrupted ({first_line(error)[:100]}); download or copy it again"
    ends = {name.rpartition("/")[2] for name in names}
    save = f'torch.save(model.state_dict(), "{path.stem}-weights.pth")'
    if "constants.pkl" in ends and "data.pkl" in ends:
        return (
            "is a TorchScript archive, which contains code; save its state dict with Python: "
            f'model = torch.jit.load("{path}", map_location="cpu"); {save}'
        )
    if ends & {"archive_format", "serialized_exported_program.json"}:
        return (
            "is a program of torch.export; save its state dict with Python: "
            f'model = torch.export.load("{path}"); torch.save(dict(model.state_dict), "{path.stem}-weights.pth")'
        )
    if "data.pkl" in ends:
        return ""
    if names and all(name.endswith(".npy") for name in names):
        return f"contains arrays of numpy.savez; {EXPECTED}"
    inside = [name for name in names if name.endswith(CHECKPOINTS)]
    if inside:
        return f"is a zip archive that contains {', '.join(inside[:3])}; unpack it first"
    return f"is a zip archive of other files ({listed(names, 3) or 'empty'}); {EXPECTED}"


def reason(path: Path, error: Exception, key: str = "") -> str:
    """Explain in one line why ``torch.load(weights_only=True)`` refused a file, and how to save its weights."""
    text = str(error)
    if "Unsupported operand" in text:
        paddle = "; weights of Paddle are not supported" if path.suffix.startswith(".pd") else ""
        return f"cannot be read as weights: the pickle was not written by torch.save{paddle}"
    match = re.search(r"(?:GLOBAL|Trying to \S+ unsupported GLOBAL) (\S+)", text)
    if not match and "Unsupported" not in text:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        shown = next((line for line in lines if line.startswith("WeightsUnpickler error")), first_line(error))
        return f"cannot be read as weights; truncated or corrupted ({type(error).__name__}: {shown[:120]})"
    name = match[1] if match else "other objects"
    load = f'torch.load("{path}", map_location="cpu", weights_only=False)'
    if _is_whole_model(path):
        return (
            f"is a whole pickled model (class {name}), which cannot be read without running its code; if you trust the "
            f"file, save its state dict with Python where this class is installed: model = {load}; "
            f'torch.save(model.state_dict(), "{path.stem}-weights.pth")'
        )
    usual, ending = _usual_key(path)
    place = "".join(f'["{part}"]' for part in (key or usual).split("."))
    return (
        f"the pickle contains more than arrays ({name}), and nothing else is read; if you trust the file, save its "
        f"state dict with Python: checkpoint = {load}; "
        f'torch.save(checkpoint{place}{ending}, "{path.stem}-weights.pth")'
    )


def _is_whole_model(path: Path) -> bool:
    """Whether the outermost object of a pickle is neither a container nor an ordered dict."""
    for name, value in _opcodes(path):
        if name in ("PROTO", "FRAME"):
            continue
        if name == "MARK":  # a tuple, which stands for the source code of a class in the old format
            return True
        return name in ("GLOBAL", "STACK_GLOBAL") and value != "collections OrderedDict"
    return False


def _usual_key(path: Path) -> tuple[str, str]:
    """Return a key of a pickled dict that usually has the weights, and what turns its value into a state dict."""
    key = ""
    for name, value in _opcodes(path):
        if key and name not in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            plain = name == "EMPTY_DICT" or value == "collections OrderedDict"
            return key, "" if plain else ".state_dict()"
        if isinstance(value, str) and value in INSIDE:
            key = value
    return "state_dict", ""


def _opcodes(path: Path) -> Iterator[tuple[str, Any]]:
    """Disassemble the pickle of a PyTorch file, of the zip format or the older one."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                member = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                with archive.open(member) as file:
                    data, skipped = file.read(_MOST), 0
        else:
            with path.open("rb") as file:
                data, skipped = file.read(_MOST), 3  # the older format begins with three short pickles
        for _ in range(skipped):
            size = next(place for code, _, place in pickletools.genops(data) if code.name == "STOP")
            data = data[(size or 0) + 1 :]
        for code, value, _ in islice(pickletools.genops(data), 1_000_000):
            yield code.name, value
    except Exception:  # a damaged archive or pickle may raise anything
        return
