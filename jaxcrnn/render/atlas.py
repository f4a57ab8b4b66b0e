"""Glyph atlases: every character of a charset in every typeface, drawn once, as gray tiles of one size."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
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

SIZE = 40  # rows and columns of a tile
EM = 32  # pixels of the em square, which stands in the middle of the tile
BASELINE = 31  # row of the baseline: four fifths and a little of the em from its top, as in most CJK fonts
FORMAT = 1  # of the files; another number makes cached ones stale
SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
PLACES = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts",
          "/System/Library/Fonts", "~/Library/Fonts", "C:/Windows/Fonts")  # fmt: skip


class Atlas(NamedTuple):
    """Glyphs of N characters in F typefaces.

    Attributes:
      characters: of N code points.
      fonts: F names.
      tiles: ``[F,N,40,40]`` uint8 ink, 255 where the glyph is; the em is 32 pixels, the middle of the glyph's advance
        is the middle of the tile, and all baselines are on row 31.
      advances: ``[F,N]`` float32, how wide the glyph is set, in ems.
      present: ``[F,N]`` bool; a glyph that a font lacks has an empty tile and is never to be drawn.
    """

    characters: str
    fonts: tuple[str, ...]
    tiles: np.ndarray
    advances: np.ndarray
    present: np.ndarray

    def missing(self) -> dict[str, str]:
        """The characters that each font lacks, for fonts that lack some."""
        lacking = {name: "".join(c for c, there in zip(self.characters, row, strict=True) if not there)
                   for name, row in zip(self.fonts, self.present, strict=True)}  # fmt: skip
        return {name: characters for name, characters in lacking.items() if characters}

    def lacking(self, most: int = 20) -> list[str]:
        """A line for each font that lacks characters, with the first of them."""
        return [
            f"{name} lacks {len(missing)} of {len(self.characters)} characters: "
            + " ".join(c if c.isprintable() else name_of(c) for c in missing[:most])
            + (" ..." if len(missing) > most else "")
            for name, missing in self.missing().items()
        ]

    def only(self, fonts: Sequence[str]) -> Atlas:
        """The same characters in some of the fonts.

        Raises:
          UserError: a name that is none of them.
        """
        for name in fonts:
            if name not in self.fonts:
                raise UserError(f"{name!r} is no typeface here; expected some of {', '.join(self.fonts)}")
        at = [self.fonts.index(name) for name in fonts]
        return self._replace(fonts=tuple(fonts), tiles=self.tiles[at], advances=self.advances[at],
                             present=self.present[at])  # fmt: skip

    def select(self, characters: str) -> Atlas:
        """The same fonts for other characters, in their order; those the atlas lacks are not present in any font."""
        index = {c: i for i, c in enumerate(self.characters)}
        at = np.asarray([index.get(c, -1) for c in characters], np.int64)
        known = at >= 0
        return Atlas(
            characters,
            self.fonts,
            np.where(known[None, :, None, None], self.tiles[:, at], 0).astype(np.uint8),
            np.where(known, self.advances[:, at], 1.0).astype(np.float32),
            self.present[:, at] & known,
        )


def find_fonts(folder: str | Path | None = None) -> list[Path]:
    """Font files in a folder and below it, or, without one, where systems keep theirs, in the order of their names.

    Raises:
      UserError: the folder does not exist or has no font.
    """
    if folder is None:
        places = [Path(place).expanduser() for place in PLACES]
    elif Path(folder).is_dir():
        places = [Path(folder)]
    else:
        raise UserError(f"{folder}: no such folder; expected one with fonts ({', '.join(SUFFIXES)})")
    found = [path for place in places for path in place.rglob("*") if path.suffix.lower() in SUFFIXES]
    if folder is not None and not found:
        raise UserError(f"{folder}: no font in it; expected files named {', '.join('*' + s for s in SUFFIXES)}")
    return sorted(found, key=lambda path: path.name)


def system_fonts(characters: str) -> list[Path]:
    """The system's fonts that have at least half of the given characters.

    Raises:
      UserError: there is none.
    """
    wanted = {ord(c) for c in characters}
    usable = []
    for path in find_fonts():
        try:
            have = _characters_of(path)
        except UserError:
            continue  # another program's broken font is not ours to report; --fonts names those to use
        if 2 * len(wanted & have) >= len(wanted):
            usable.append(path)
    if not usable:
        raise UserError("no font of this system has half of the characters; give --fonts FOLDER with fonts that do")
    return usable


def build(
    characters: str,
    fonts: Sequence[Path],
    *,
    cached: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Atlas:
    """Draws an atlas, or reads it from the user's cache, where it is kept by the contents of fonts and charset.

    Args:
      characters: to draw; a font may lack some.
      fonts: TrueType or OpenType files; of a collection the first face is taken.
      cached: look into the cache, and write there.
      progress: called with the number of fonts done, and of all.

    Raises:
      UserError: a file is no font that FreeType reads, or the package fonttools is not installed.
    """
    if not fonts:
        raise UserError("no fonts given; expected at least one")
    digest = hashlib.sha256(f"{FORMAT} {SIZE} {EM} {BASELINE} {characters}".encode())
    for path in fonts:
        digest.update(path.name.encode() + hashlib.sha256(_read(path)).digest())
    kept = cache_folder() / f"atlas-{digest.hexdigest()[:24]}.npz"
    if cached and kept.exists():
        try:
            return load(kept)
        except UserError:
            kept.unlink(missing_ok=True)  # half written, or of other software: drawn again
    drawn = []
    for number, path in enumerate(fonts):
        progress(number, len(fonts))
        drawn.append(_draw(path, characters))
    tiles, advances, present = (np.stack(parts) for parts in zip(*drawn, strict=True))
    atlas = Atlas(characters, tuple(path.stem for path in fonts), tiles, advances, present)
    if cached:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            save(atlas, kept)
        except OSError:
            pass  # a cache that cannot be written costs seconds next time, nothing else
    return atlas


def save(atlas: Atlas, path: Path) -> None:
    """Writes an atlas as one compressed file of arrays."""
    # Written aside and renamed, so that a stopped program leaves no half file behind.
    aside = path.with_name(f"{path.stem}-{os.getpid()}.part.npz")
    np.savez_compressed(
        aside,
        format=np.asarray(FORMAT),
        characters=np.asarray(atlas.characters),
        fonts=np.asarray(atlas.fonts),
        tiles=atlas.tiles,
        advances=atlas.advances,
        present=atlas.present,
    )
    aside.replace(path)


def load(path: Path) -> Atlas:
    """Reads an atlas.

    Raises:
      UserError: the file is no atlas of this format.
    """
    try:
        with path.open("rb") as raw, np.load(raw) as file:
            if int(file["format"]) != FORMAT:
                raise UserError(f"{path}: an atlas of format {int(file['format'])}; expected {FORMAT}")
            fonts = tuple(str(name) for name in file["fonts"])
            found = Atlas(str(file["characters"]), fonts, file["tiles"], file["advances"], file["present"])
        each = len(fonts), len(found.characters)
        if (found.tiles.shape, found.advances.shape, found.present.shape) != ((*each, SIZE, SIZE), each, each):
            raise ValueError(f"glyphs of shape {found.tiles.shape} for {each[0]} fonts and {each[1]} characters")
        return found
    except UserError:
        raise
    except Exception as error:  # zip, zlib and numpy have each their own for broken bytes
        raise UserError(f"{path}: no glyph atlas ({first_line(error)}); expected one written by this program") from None


@cache
def embedded() -> Atlas:
    """The atlas in the package: look-alike groups, digits and Latin letters in Song, Kai and Hei."""
    with resources.as_file(resources.files("jaxcrnn") / "resources" / "atlas.npz") as path:
        return load(path)


def of_fonts(fonts: str, characters: str) -> Atlas:
    """The atlas of some characters in ``"embedded"`` or ``"system"`` fonts, or in those of a folder.

    Raises:
      UserError: as `system_fonts`, `find_fonts` and `build`.
    """
    if fonts == "embedded":
        return embedded().select(characters)
    return build(characters, system_fonts(characters) if fonts == "system" else find_fonts(fonts))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected a font") from None


def _characters_of(path: Path) -> set[int]:
    """The code points that a font maps to a glyph of its own."""
    try:
        from fontTools.ttLib import TTFont, TTLibError
    except ImportError:
        raise UserError("fonts need the package fonttools; expected the extra 'data'") from None
    try:
        with path.open("rb") as file, TTFont(file, fontNumber=0, lazy=True) as font:
            table = font.getBestCmap() or {}
    except (TTLibError, OSError, AssertionError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: no font ({str(error) or type(error).__name__}); expected TrueType or OpenType"
        ) from None
    return {code for code, glyph in table.items() if glyph != ".notdef"}


def _draw(path: Path, characters: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    have = _characters_of(path)
    try:
        font = ImageFont.truetype(str(path), EM, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise UserError(f"{path}: FreeType does not read it ({error}); expected TrueType or OpenType") from None
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
        # A font may map a character to an empty glyph: that is as good as none, unless nothing is what it looks like.
        present[i] = bool(tiles[i].any()) or is_space(character)
    return tiles, advances, present


def is_space(character: str) -> bool:
    """Whether a character leaves no ink."""
    return unicodedata.category(character) in ("Zs", "Cf", "Cc")


def common(characters: Iterable[str], atlas: Atlas) -> str:
    """Those of the characters that at least one font of the atlas has."""
    drawn = {atlas.characters[i] for i in np.flatnonzero(np.any(atlas.present, axis=0))}
    return "".join(c for c in characters if c in drawn)
