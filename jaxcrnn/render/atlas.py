"""Glyph atlases: every character of a charset in every typeface, as gray tiles of one size."""

from __future__ import annotations

import hashlib
import os
import unicodedata
import zipfile
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxcrnn._files import cache_folder
from jaxcrnn._text import first_line
from jaxcrnn.charset import name_of
from jaxcrnn.errors import UserError
from jaxcrnn.render.fonts import Face, chosen, code_points, find, parse, selected, system

SIZE = 40  # rows and columns of a tile
EM = 32  # size in pixels of the em square, which is centered in the tile
BASELINE = 31  # row of the baseline: a little over four fifths of the em from its top, as in most CJK fonts
FORMAT = 1  # version of the files; changing it invalidates cached ones
COMPACT = 2  # the same with tiles of 4 bits a pixel


class Atlas(NamedTuple):
    """Glyphs of N characters in F typefaces.

    Attributes:
      characters: N code points.
      fonts: F names.
      tiles: ``[F,N,40,40]`` uint8 ink, 255 inside the glyph; the em is 32 pixels, the advance of the glyph is centered
        in the tile, and all baselines are on row 31.
      advances: ``[F,N]`` float32 advance widths in ems.
      present: ``[F,N]`` bool; glyphs that a font lacks have an empty tile and must not be drawn.
    """

    characters: str
    fonts: tuple[str, ...]
    tiles: np.ndarray
    advances: np.ndarray
    present: np.ndarray

    def missing(self) -> dict[str, str]:
        """Return the characters missing in each font, for fonts that lack some."""
        lacking = {
            name: "".join(c for c, there in zip(self.characters, row, strict=True) if not there)
            for name, row in zip(self.fonts, self.present, strict=True)
        }
        return {name: characters for name, characters in lacking.items() if characters}

    def lacking(self, most: int = 20) -> list[str]:
        """Describe the characters missing in each font, one line per font."""
        return [
            f"{name} is missing {len(missing)} of {len(self.characters)} characters: "
            + " ".join(c if c.isprintable() else name_of(c) for c in missing[:most])
            + (" ..." if len(missing) > most else "")
            for name, missing in self.missing().items()
        ]

    def only(self, fonts: Collection[str] = (), without: Collection[str] = ()) -> Atlas:
        """Select some of the fonts: those named, or all, but not those of ``without``.

        Raises:
          UserError: a name is unknown, or no font is left.
        """
        kept = selected(self.fonts, fonts, without)
        at = [self.fonts.index(name) for name in kept]
        return self._replace(
            fonts=tuple(kept), tiles=self.tiles[at], advances=self.advances[at], present=self.present[at]
        )

    def select(self, characters: str) -> Atlas:
        """Select characters in a given order; those that the atlas lacks are not present in any font."""
        if characters == self.characters:
            return self
        index = {c: i for i, c in enumerate(self.characters)}
        at = np.asarray([index.get(c, -1) for c in characters], np.int64)
        has = at >= 0
        return Atlas(
            characters,
            self.fonts,
            np.where(has[None, :, None, None], self.tiles[:, at], 0).astype(np.uint8),
            np.where(has, self.advances[:, at], 1.0).astype(np.float32),
            self.present[:, at] & has,
        )


def build(
    characters: str,
    fonts: Sequence[Face | Path],
    *,
    cached: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Atlas:
    """Draw an atlas, or load it from the user's cache, whose keys are hashes of the fonts and characters.

    Args:
      characters: characters to draw; fonts may lack some.
      fonts: faces of TrueType or OpenType files; of a collection, by default the face for the characters' script.
      cached: whether to use the cache.
      progress: called with the number of fonts done and the total.

    Raises:
      UserError: FreeType cannot read a font, two fonts have the same name, or the package fonttools is not installed.
    """
    if not fonts:
        raise UserError("the list of fonts is empty; expected at least one font")
    digest = hashlib.sha256(f"{FORMAT} {SIZE} {EM} {BASELINE} {characters}".encode())
    faces = [font if isinstance(font, Face) else parse(font) for font in fonts]
    indices = [chosen(face, characters) for face in faces]
    for face, index in zip(faces, indices, strict=True):
        digest.update(face.name.encode() + hashlib.sha256(_read(face.path)).digest() + bytes([index]))
    kept = cache_folder() / f"atlas-{digest.hexdigest()[:24]}.npz"
    if cached and kept.exists():
        try:
            return load(kept)
        except UserError:
            kept.unlink(missing_ok=True)  # corrupted or outdated, so drawn again
    drawn = []
    for number, (face, index) in enumerate(zip(faces, indices, strict=True)):
        progress(number, len(fonts))
        drawn.append(_draw(face.path, index, characters))
    tiles, advances, present = (np.stack(parts) for parts in zip(*drawn, strict=True))
    atlas = Atlas(characters, tuple(face.name for face in faces), tiles, advances, present)
    if cached:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            save(atlas, kept)
        except OSError:
            pass  # without a cache, drawing takes seconds next time
    return atlas


def save(atlas: Atlas, path: Path, *, compact: bool = False) -> None:
    """Write an atlas as one compressed file of arrays.

    Args:
      atlas: the atlas.
      path: file to write.
      compact: round gray values to 4 bits and compress harder, to about a third of the size; many typefaces take
        minutes.
    """
    arrays = {
        "format": np.asarray(COMPACT if compact else FORMAT),
        "characters": np.asarray(atlas.characters),
        "fonts": np.asarray(atlas.fonts),
        "tiles": _packed(atlas.tiles) if compact else atlas.tiles,
        "advances": atlas.advances,
        "present": atlas.present,
    }
    # Written to a temporary name first, so that an interrupted program leaves no partial file.
    aside = path.with_name(f"{path.stem}-{os.getpid()}.part.npz")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_LZMA if compact else zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    aside.replace(path)


def _packed(tiles: np.ndarray) -> np.ndarray:
    """Round gray values to 4 bits, and put two neighbours along a row into a byte, the left one in the upper half."""
    return np.stack([_packed_pairs(typeface) for typeface in tiles])


def _packed_pairs(tiles: np.ndarray) -> np.ndarray:
    four_bits = ((tiles.astype(np.uint16) + 8) // 17).astype(np.uint8)
    return four_bits[..., ::2] << 4 | four_bits[..., 1::2]


def _unpacked(tiles: np.ndarray) -> np.ndarray:
    whole = np.empty((*tiles.shape[:-1], 2 * tiles.shape[-1]), np.uint8)
    whole[..., ::2], whole[..., 1::2] = (tiles >> 4) * 17, (tiles & 15) * 17
    return whole


def load(path: Path) -> Atlas:
    """Load an atlas.

    Raises:
      UserError: the file is not an atlas of this format.
    """
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            version, tiles = int(file["format"]), file["tiles"]
            if version not in (FORMAT, COMPACT):
                raise UserError(f"{path}: atlas format {version}; expected {FORMAT} or {COMPACT}")
            fonts = tuple(str(name) for name in file["fonts"])
            tiles = _unpacked(tiles) if version == COMPACT else tiles
            atlas = Atlas(str(file["characters"]), fonts, tiles, file["advances"], file["present"])
        each = len(fonts), len(atlas.characters)
        if (atlas.tiles.shape, atlas.advances.shape, atlas.present.shape) != ((*each, SIZE, SIZE), each, each):
            raise ValueError(f"glyphs of shape {atlas.tiles.shape} for {each[0]} fonts and {each[1]} characters")
        return atlas
    except UserError:
        raise
    except Exception as error:  # zip, zlib and numpy raise different exceptions
        raise UserError(f"{path}: not a glyph atlas ({first_line(error)}); expected one written by jaxcrnn") from None


@cache
def embedded() -> Atlas:
    """Load the package's own atlas: look-alike groups, digits and Latin letters in Song, Kai and Hei."""
    with resources.as_file(resources.files("jaxcrnn") / "resources" / "atlas.npz") as path:
        return load(path)


def of_fonts(fonts: str, characters: str) -> Atlas:
    """Load the atlas of some characters.

    Args:
      fonts: ``"embedded"``, ``"system"``, a folder of fonts, a font, a face such as ``file.ttc#2``, or an atlas that
        ``jaxcrnn lookalikes atlas`` wrote (``*.npz``).
      characters: the characters.

    Raises:
      UserError: there is no such font, or it cannot be read.
    """
    if fonts == "embedded":
        return embedded().select(characters)
    if fonts.endswith(".npz"):
        return load(Path(fonts)).select(characters)
    return build(characters, system(characters) if fonts == "system" else find(fonts))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a font") from None


def _draw(path: Path, index: int, characters: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    have = code_points(path, index)
    try:
        font = ImageFont.truetype(str(path), EM, index, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise UserError(f"{path}: FreeType cannot read it ({error}); expected TrueType or OpenType") from None
    tiles = np.zeros((len(characters), SIZE, SIZE), np.uint8)
    advances = np.ones(len(characters), np.float32)
    present = np.zeros(len(characters), bool)
    for i, character in enumerate(characters):
        if ord(character) not in have:
            continue
        advance = font.getlength(character)
        image = Image.new("L", (SIZE, SIZE))
        ImageDraw.Draw(image).text(((SIZE - advance) / 2, BASELINE), character, fill=255, font=font, anchor="ls")
        tiles[i], advances[i] = np.asarray(image), advance / EM
        # An empty glyph counts as missing, except for characters that are blank by nature.
        present[i] = bool(tiles[i].any()) or is_space(character)
    return tiles, advances, present


def is_space(character: str) -> bool:
    """Return whether a character leaves no ink."""
    return unicodedata.category(character) in ("Zs", "Cf", "Cc")


def common(characters: Iterable[str], atlas: Atlas) -> str:
    """Select the characters that at least one font of the atlas has."""
    drawn = {atlas.characters[i] for i in np.flatnonzero(np.any(atlas.present, axis=0))}
    return "".join(c for c in characters if c in drawn)
