"""Decoding image files into gray lines of a fixed height."""

from __future__ import annotations

import errno
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from jaxcrnn._text import counted, first_line
from jaxcrnn.errors import UserError

# Pillow's warning is redundant: the limit here is far lower, and exceeding it is an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Pillow also warns about invalid tags, which do not affect pixels.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

MISSING = "missing image"
UNREADABLE = "unreadable image"
ABSURD = "absurd size"
WIDER = "data.max_width; with a trained run: --max-width"
# Shares of the contrast and of the height of the text that `trimmed` uses.
EMPTY, AROUND = 0.3, 0.1
OTHER_WIDTHS = (0.85, 1.2)  # shares of the width, at which `looks` scales a line again

# Pillow supports more formats, and would start an external program for PostScript. The first group needs no plugins.
_COMMON = ("BMP", "GIF", "JPEG", "PPM", "PNG")
_OTHERS = ("AVIF", "DIB", "ICO", "JPEG2000", "MPO", "PCX", "SGI", "TGA", "TIFF", "WEBP")


class ImageError(UserError):
    """An unusable image; ``kind`` is its row in the audit's table."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.kind, str(self))  # worker processes send it by pickle


@dataclass(frozen=True)
class Limits:
    """Bounds on image sizes, and how images and labels are read.

    Attributes:
      max_pixels: maximum pixels of a file, checked before decoding (a small file can decompress to gigabytes).
      max_width: maximum width in pixels after scaling to the model's height.
      max_bytes: maximum bytes of a file.
      stretch: width in pixels that every line is stretched to; 0 keeps the aspect ratio.
      outside: whether a list of images may name files outside its folder.
      vertical: whether lines taller than wide are rotated by 90 degrees counterclockwise, so that a vertical line is
        read from top to bottom.
      trim: whether empty rows above and below the text are removed before scaling (`trimmed`).
      invert: whether black and white are swapped, for light text on a dark ground.
      reread: confidence below which a line is read again, narrower and wider (`looks`); 0 for never.
      normalize: operations that normalize labels, separated by commas (`jaxcrnn.data.normalize.OPERATIONS`).
    """

    max_pixels: int = 32_000_000
    max_width: int = 4096
    max_bytes: int = 64_000_000
    outside: bool = False
    stretch: int = 0
    vertical: bool = False
    trim: bool = False
    invert: bool = False
    reread: float = 0.0
    normalize: str = ""

    def of_stranger(self) -> Limits:
        """Return bounds for an untrusted run: its bytes and pixels, capped at the defaults."""
        own = Limits()
        return replace(
            self, max_pixels=min(self.max_pixels, own.max_pixels), max_bytes=min(self.max_bytes, own.max_bytes)
        )


def read_gray(file: str | Path | bytes | BinaryIO, limits: Limits, name: str = "") -> np.ndarray:
    """Decode an image of any mode into gray: BMP, GIF, JPEG, PNG, PPM, TIFF, WebP and some more.

    Transparent pixels are composited over white, the EXIF orientation is applied, and only the first page or frame is
    read (`noting_pages` collects the names of images with more). Integers of more than 8 bits and floats are scaled to
    8 bits: white is the largest number of 8, 10, 12, 14 or 16 bits, whichever is the first that no pixel exceeds
    (scanners store 12 bits in 16), or 1 if no pixel exceeds that, or the brightest pixel if 16 bits are too few.

    Args:
      file: path, bytes of a file, or open binary file.
      limits: bounds on the size of the image.
      name: name of the image in messages; the path by default.

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
    except ValueError as error:  # an invalid file name
        raise ImageError(UNREADABLE, f"{name!r}: {error}") from None
    if not data:
        raise ImageError(UNREADABLE, f"{name}: empty file (0 bytes)")
    if len(data) > limits.max_bytes:
        raise ImageError(ABSURD, f"{name}: larger than the limit of {limits.max_bytes:,} bytes")
    try:
        with _open(data) as image:
            width, height = image.size
            if width * height > limits.max_pixels:
                raise ImageError(
                    ABSURD, f"{name}: {width}x{height} pixels; the limit is {limits.max_pixels:,} in total"
                )
            gray = _upright_gray(image)
            if _listening and _pages(image) > 1:
                for names in _listening.values():
                    names.append(name)
            return gray
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        detail = f"more than {most:,} pixels; the limit is {limits.max_pixels:,} in total"
        raise ImageError(ABSURD, f"{name}: {detail}") from None
    except Image.UnidentifiedImageError:
        size = counted(len(data), "byte")
        raise ImageError(UNREADABLE, f"{name}: not an image in a supported format ({size})") from None
    except Exception as error:  # decoders may raise anything on broken data
        raise ImageError(UNREADABLE, f"{name}: {first_line(error)}") from None


_listening: dict[int, list[str]] = {}


@contextmanager
def noting_pages() -> Iterator[list[str]]:
    """Collect the names of the images with several pages or frames that `read_gray` reads meanwhile, in any thread."""
    names: list[str] = []
    _listening[id(names)] = names
    try:
        yield names
    finally:
        del _listening[id(names)]


def pages_note(names: list[str], examples: int = 3) -> str:
    """Report the images that `noting_pages` collected, of which only the first page was read."""
    images = f"{len(names)} images have" if len(names) > 1 else "1 image has"
    more = f" and {len(names) - examples} more" if len(names) > examples else ""
    return f"{images} several pages or frames; only the first is read: {', '.join(sorted(names)[:examples])}{more}"


def _pages(image: Image.Image) -> int:
    """Count the pages of a file; the further pictures in a photo, such as its depth map, are not pages."""
    with suppress(Exception):  # decoders may raise anything on broken data; the first page was fine
        return getattr(image, "n_frames", 1) if image.format != "MPO" else 1
    return 1


def _read(file: str | Path | BinaryIO, most: int) -> bytes:
    if not isinstance(file, str | Path):
        return file.read(most)
    mode = Path(file).stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # opening a pipe would block
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
    """Convert an open image of any mode to gray, as `read_gray` does: also turned by its EXIF orientation.

    Raises:
      ImageError: the image has no pixels, too many, cannot be decoded, or has an unsupported mode.
    """
    width, height = image.size
    if not 0 < width * height <= limits.max_pixels:
        raise ImageError(ABSURD, f"{name}: {width}x{height} pixels; the limit is {limits.max_pixels:,} in total")
    try:
        return _upright_gray(image)
    except MemoryError:
        raise
    except Exception as error:  # decoders may raise anything on broken data
        raise ImageError(UNREADABLE, f"{name}: mode {image.mode}: {first_line(error)}") from None


def _upright_gray(image: Image.Image) -> np.ndarray:
    image.load()  # some formats store the orientation after the pixels
    try:
        upright = ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise ValueError(f"invalid EXIF data ({first_line(error)})") from None
    return _to_gray(upright)


def _to_gray(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        # convert("L") would clip these at 255 instead of scaling them.
        values = np.asarray(image)
        scale = 255 / _white(float(np.max(values, initial=0, where=np.isfinite(values))))
        gray = np.empty(values.shape, np.uint8)
        for start in range(0, len(values), 256):  # chunks bound the memory of float64 values
            rows = np.nan_to_num(values[start : start + 256].astype(np.float64), nan=np.inf)
            gray[start : start + 256] = np.clip(np.rint(rows * scale), 0, 255)
        return gray
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return np.asarray(image.convert("L"))


def _white(brightest: float) -> float:
    """Return the value of white of an image of integers or floats, as `read_gray` defines it."""
    if brightest <= 1:
        return 1.0
    return next((2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if brightest < 2**bits), brightest)


def to_png(gray: np.ndarray) -> bytes:
    """Encode a gray image ``[h, w]`` as PNG."""
    png = io.BytesIO()
    Image.fromarray(gray).save(png, "PNG")
    return png.getvalue()


def trimmed(gray: np.ndarray, limits: Limits) -> np.ndarray:
    """Remove empty rows above and below the text with ``limits.trim``; otherwise return the image itself.

    Rows are empty if their gray values differ by at most 30 % of the contrast of the image. A tenth of the height of
    the text stays around it, and at least half of the image, so that a dash does not become a bar. Of lines that are
    rotated (``limits.vertical``), columns are removed.

    Args:
      gray: ``[h, w]`` uint8.
      limits: how images are read.

    Returns:
      ``[h', w']`` uint8, a view.

    Examples:
      >>> import numpy as np
      >>> image = np.full((60, 9), 255, np.uint8)
      >>> image[20:50, 2:7] = 0
      >>> trimmed(image, Limits(trim=True)).shape
      (36, 9)
    """
    if not limits.trim or not gray.size:
        return gray
    axis = int(limits.vertical and gray.shape[0] > gray.shape[1])
    low, high = gray.min(axis=1 - axis).astype(np.int32), gray.max(axis=1 - axis).astype(np.int32)
    rows = np.flatnonzero(high - low > EMPTY * (high.max() - low.min()))
    if not len(rows):
        return gray
    first, stop, count = int(rows[0]), int(rows[-1]) + 1, gray.shape[axis]
    least = (count + 1) // 2
    around = max(round(AROUND * (stop - first)), (least - (stop - first) + 1) // 2)
    first, stop = max(0, min(first - around, count - least)), min(count, max(stop + around, least))
    kept = slice(first, stop)
    return gray[:, kept] if axis else gray[kept]


def fitted_width(size: tuple[int, int], height: int, limits: Limits, name: str = "image") -> int:
    """Return the width after `fit_height` of an image of ``size``, its height and width in pixels once `trimmed`.

    Raises:
      ImageError: it is wider than ``limits.max_width``.
    """
    h, w = sorted(size) if limits.vertical else size
    width = limits.stretch or max(1, round(w * height / h))
    if width > limits.max_width:
        raise ImageError(
            ABSURD,
            f"{name}: {w}x{h} becomes {width} px wide at height {height}; the limit is {limits.max_width} px ({WIDER})",
        )
    return width


def fit_height(gray: np.ndarray, height: int, limits: Limits, name: str = "image") -> np.ndarray:
    """Scale a gray image to ``height``, keeping the aspect ratio or stretching it to ``limits.stretch``.

    With ``limits.trim``, the image is first `trimmed`. With ``limits.vertical``, an image taller than wide is rotated,
    so that its top becomes the left end. With ``limits.invert``, black and white are swapped. The width is at least one
    pixel.

    Returns:
      ``[height, w]`` uint8.

    Raises:
      ImageError: the scaled line would be wider than ``limits.max_width``.
    """
    gray = _prepared(gray, limits)
    return _resized(gray, height, fitted_width((gray.shape[0], gray.shape[1]), height, limits, name))


def looks(gray: np.ndarray, height: int, limits: Limits, name: str = "image") -> list[np.ndarray]:
    """Scale a gray image as `fit_height` does and, with ``limits.reread``, also 15 % narrower and 20 % wider.

    A recogniser that is unsure of a line may be sure of the same line at another width. Lines that are stretched to one
    width have a single look, and a look wider than ``limits.max_width`` is omitted.

    Returns:
      Lines ``[height, w]`` uint8, first that of `fit_height`.

    Raises:
      ImageError: as `fit_height`.

    Examples:
      >>> import numpy as np
      >>> [line.shape for line in looks(np.zeros((64, 200), np.uint8), 32, Limits(reread=0.97))]
      [(32, 100), (32, 85), (32, 120)]
    """
    gray = _prepared(gray, limits)
    own = fitted_width((gray.shape[0], gray.shape[1]), height, limits, name)
    others = OTHER_WIDTHS if limits.reread and not limits.stretch else ()
    widths = dict.fromkeys([own, *(max(1, round(own * share)) for share in others)])  # of narrow lines, some are equal
    return [_resized(gray, height, width) for width in widths if width <= limits.max_width]


def _prepared(gray: np.ndarray, limits: Limits) -> np.ndarray:
    turned = limits.vertical and gray.shape[0] > gray.shape[1]
    gray = trimmed(gray, limits)
    if limits.invert:
        gray = 255 - gray
    return np.ascontiguousarray(np.rot90(gray)) if turned else gray


def _resized(gray: np.ndarray, height: int, width: int) -> np.ndarray:
    if (height, width) == gray.shape:
        return gray
    return np.asarray(Image.fromarray(gray).resize((width, height), Image.Resampling.BILINEAR))


def to_float(gray: np.ndarray) -> np.ndarray:
    """Convert uint8 gray to float32 in [-1, 1], where white is 1."""
    return gray.astype(np.float32) / np.float32(127.5) - np.float32(1)
