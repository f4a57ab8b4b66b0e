"""Image files -> gray lines of a fixed height."""

from __future__ import annotations

import errno
import io
import stat
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from jaxcrnn._text import first_line
from jaxcrnn.errors import UserError

# Pillow's own warning says the same as our limit, which is far below it and always an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# What it says of tags that make no sense changes no pixel.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

MISSING = "missing image"
UNREADABLE = "unreadable image"
ABSURD = "absurd size"

# Pillow knows more, and would start a program of its own for PostScript. Those it looks for without loading anything
# come first.
_COMMON = ("BMP", "GIF", "JPEG", "PPM", "PNG")
_OTHERS = ("AVIF", "DIB", "ICO", "JPEG2000", "MPO", "PCX", "SGI", "TGA", "TIFF", "WEBP")


class ImageError(UserError):
    """An image that cannot be used; ``kind`` is the row of the audit's table it belongs to."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.kind, str(self))  # it comes out of worker processes


@dataclass(frozen=True)
class Limits:
    """What an image may ask of the machine.

    Attributes:
      max_pixels: pixels of the file, checked before it is decoded (a small file can unpack to gigabytes).
      max_width: pixels of width after scaling to the model's height.
      max_bytes: bytes of the file.
      stretch: pixels of width that every line is stretched to, whatever its ratio; 0 keeps the ratio.
      outside: whether a list of images may name files outside the folder it is in.
    """

    max_pixels: int = 32_000_000
    max_width: int = 4096
    max_bytes: int = 64_000_000
    outside: bool = False
    stretch: int = 0

    def of_stranger(self) -> Limits:
        """Bounds of bytes and pixels no looser than the default ones: these may be another's, the machine is ours."""
        own = Limits()
        return replace(
            self, max_pixels=min(self.max_pixels, own.max_pixels), max_bytes=min(self.max_bytes, own.max_bytes)
        )


def read_gray(file: str | Path | bytes | BinaryIO, limits: Limits, name: str = "") -> np.ndarray:
    """Decodes an image of any mode into gray: BMP, GIF, JPEG, PNG, PPM, TIFF, WebP and some more.

    Transparency is laid over white paper, 16 bits are scaled to 8, the EXIF orientation is applied.

    Args:
      file: a path, the bytes of a file, or an open binary file.
      limits: sizes beyond which an image is refused.
      name: how messages call the image; the path where there is one.

    Returns:
      ``[h, w]`` uint8, white = 255.

    Raises:
      ImageError: missing, empty, truncated, not an image, too many bytes or pixels.
    """
    name = name or (str(file) if isinstance(file, str | Path) else "image")
    try:
        data = file if isinstance(file, bytes) else _read(file, limits.max_bytes + 1)
    except FileNotFoundError:
        raise ImageError(MISSING, f"{name}: no such file") from None
    except OSError as error:
        raise ImageError(UNREADABLE, f"{name}: {error.strerror or error}") from None
    except ValueError as error:  # a name that no file can have
        raise ImageError(UNREADABLE, f"{name!r}: {error}") from None
    if not data:
        raise ImageError(UNREADABLE, f"{name}: the file is empty (0 bytes)")
    if len(data) > limits.max_bytes:
        raise ImageError(ABSURD, f"{name}: more bytes than the limit of {limits.max_bytes:,}")
    try:
        with _open(data) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise ImageError(ABSURD, f"{name}: {width}x{height} pixels; the limit is {limits.max_pixels:,} in all")
            image.load()
            return _to_gray(ImageOps.exif_transpose(image))
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        said = f"more than {most:,} pixels; the limit is {limits.max_pixels:,} in all"
        raise ImageError(ABSURD, f"{name}: {said}") from None
    except Image.UnidentifiedImageError:
        raise ImageError(UNREADABLE, f"{name}: not an image that Pillow knows ({len(data)} bytes)") from None
    except Exception as error:  # decoders raise whatever they like on broken data
        raise ImageError(UNREADABLE, f"{name}: {first_line(error)}") from None


def _read(file: str | Path | BinaryIO, most: int) -> bytes:
    if not isinstance(file, str | Path):
        return file.read(most)
    mode = Path(file).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would wait for ever
        raise OSError(errno.EINVAL, "not a regular file")
    with Path(file).open("rb") as opened:
        return opened.read(most)


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=_COMMON)
    except Image.UnidentifiedImageError:
        Image.init()
        return Image.open(io.BytesIO(data), formats=[name for name in _OTHERS if name in Image.OPEN])


def to_gray(image: Image.Image, limits: Limits, name: str = "image") -> np.ndarray:
    """An opened image of any mode as gray, as `read_gray`.

    Raises:
      ImageError: it has no pixel, too many, or is of a mode that is no picture.
    """
    width, height = image.size
    if not 0 < width * height <= limits.max_pixels:
        raise ImageError(ABSURD, f"{name}: {width}x{height} pixels; the limit is {limits.max_pixels:,} in all")
    try:
        return _to_gray(image)
    except (ValueError, OSError, TypeError) as error:
        raise ImageError(UNREADABLE, f"{name}: mode {image.mode}: {first_line(error)}") from None


def _to_gray(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        # convert("L") would clip these at 255 instead of scaling them.
        values = np.asarray(image)
        top = float(np.nanmax(values, initial=0))
        scale = 1.0 if 1.0 < top <= 255 and image.mode != "I;16" else 255.0 if top <= 1 else 255 / 65535
        gray = np.empty(values.shape, np.uint8)
        for start in range(0, len(values), 256):  # eight bytes a pixel only for some of them
            rows = np.nan_to_num(values[start : start + 256].astype(np.float64), nan=255.0)
            gray[start : start + 256] = np.clip(np.rint(rows * scale), 0, 255)
        return gray
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return np.asarray(image.convert("L"))


def to_png(gray: np.ndarray) -> bytes:
    """A gray image ``[h, w]`` as the bytes of a PNG file."""
    png = io.BytesIO()
    Image.fromarray(gray).save(png, "PNG")
    return png.getvalue()


def fit_height(gray: np.ndarray, height: int, limits: Limits, name: str = "image") -> np.ndarray:
    """Scales a gray image to ``height``, keeping the ratio or stretched to one width; never narrower than one pixel.

    Returns:
      ``[height, w]`` uint8.

    Raises:
      ImageError: the scaled line would be wider than ``limits.max_width``.
    """
    h, w = gray.shape
    width = limits.stretch or max(1, round(w * height / h))
    if width > limits.max_width:
        raise ImageError(
            ABSURD, f"{name}: {w}x{h} becomes {width} px wide at height {height}; the limit is {limits.max_width} px"
        )
    if (height, width) == (h, w):
        return gray
    return np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.BILINEAR))
