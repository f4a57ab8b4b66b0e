"""Font files and their faces: where they are, which characters they have, and which face of a collection to draw."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from jaxcrnn._console import notice
from jaxcrnn._files import walk
from jaxcrnn._text import counted
from jaxcrnn.errors import UserError

T = TypeVar("T")
SUFFIXES = (".ttf", ".otf", ".ttc", ".otc")
COLLECTIONS = (".ttc", ".otc")
PLACES = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "~/.local/share/fonts",
    "~/.fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
# How the faces of a collection are named after the script whose forms of Han characters they have.
REGIONS = {"SC": ("SC", "CN"), "TC": ("TC", "TW", "HK"), "JP": ("JP", "J"), "KR": ("KR", "K")}


class Face(NamedTuple):
    """A face of a font file.

    Attributes:
      path: the file.
      number: number of the face in a collection; None to choose the one for the script of the characters.
    """

    path: Path
    number: int | None = None

    @property
    def name(self) -> str:
        """Name in an atlas: that of the file, and the number of a face that was asked for."""
        return self.path.stem if self.number is None else f"{self.path.stem}#{self.number}"


def parse(text: str | Path) -> Face:
    """Parse ``FILE`` or ``FILE#NUMBER``, the notation of a face of a collection.

    Examples:
      >>> parse("fonts/NotoSansCJK-Regular.ttc#2").number
      2
    """
    match = re.fullmatch(r"(.+)#(\d+)", str(text))
    if match and not Path(text).exists():
        return Face(Path(match[1]), int(match[2]))
    return Face(Path(text))


def find(folder: str | Path | None = None) -> list[Face]:
    """Find font files at any depth of a folder, or in the system's font folders by default, sorted by name.

    Links to folders are followed, and hidden files are skipped. Links to files that do not exist are skipped with a
    notice; packages have them where another package is missing.

    Args:
      folder: a folder, a font file, or a face of a collection such as ``file.ttc#2``.

    Raises:
      UserError: the folder does not exist or has no fonts.
    """
    if folder is None:
        places = [Path(place).expanduser() for place in PLACES]
    else:
        face = parse(folder)
        if face.path.is_file():
            return [face]
        if not face.path.is_dir() or face.number is not None:
            raise UserError(f"{folder}: no such folder; expected one with fonts ({', '.join(SUFFIXES)}), or a font")
        places = [face.path]
    files = [
        path for place in places if place.is_dir() for path in walk(place).files if path.suffix.lower() in SUFFIXES
    ]
    fonts, missing = ([path for path in files if path.exists() is there] for there in (True, False))
    if folder is not None and missing:
        notice(f"{folder}: skipping {counted(len(missing), 'link')} to missing files, such as {missing[0]}")
    if folder is not None and not fonts:
        raise UserError(f"{folder}: no fonts; expected files named {', '.join('*' + s for s in SUFFIXES)}")
    return [Face(path) for path in sorted(fonts, key=lambda path: path.name)]


def named(faces: Sequence[Face], names: Collection[str] = (), without: Collection[str] = ()) -> list[Face]:
    """Select faces by name.

    Args:
      faces: the faces.
      names: names to keep; empty for all.
      without: names to exclude.

    Raises:
      UserError: a name is unknown, two faces share one, or none is left.
    """
    chosen_names = selected([face.name for face in faces], names, without)
    kept = [face for face in faces if face.name in chosen_names]
    for face in kept:
        if sum(other.name == face.name for other in kept) > 1:
            paths = ", ".join(str(other.path) for other in kept if other.name == face.name)
            raise UserError(f"two typefaces are named {face.name!r}: {paths}; expected different file names")
    return kept


def selected(names: Sequence[str], wanted: Collection[str] = (), without: Collection[str] = ()) -> list[str]:
    """Select names of typefaces: those wanted, or all, but not those of ``without``.

    Raises:
      UserError: a name is unknown, or none is left.
    """
    for name in (*wanted, *without):
        if name not in names:
            raise UserError(f"unknown typeface {name!r}; expected some of {', '.join(names)}")
    kept = [name for name in wanted or names if name not in without]
    if not kept:
        raise UserError(f"no typeface is left without {', '.join(without)}; expected at least one")
    return kept


def system(characters: str) -> list[Face]:
    """Find system fonts that have at least half of the given characters.

    Raises:
      UserError: there are none.
    """
    codes = {ord(c) for c in characters}
    usable = []
    for face in find():
        try:
            have = code_points(face.path, chosen(face, characters))
        except UserError:
            continue  # broken system fonts are ignored; fonts of a folder are reported
        if 2 * len(codes & have) >= len(codes):
            usable.append(face)
    if not usable:
        raise UserError("no system font has half of the characters; give --fonts FOLDER with fonts that do")
    return usable


def script(characters: Collection[str]) -> str:
    """Return the key of `REGIONS` whose forms of Han characters a text is written in.

    Kana mean Japanese and Hangul Korean; otherwise it is simplified or traditional Chinese, whichever character set
    (GB 2312, Big5) has more of the characters.

    Examples:
      >>> script("汉语"), script("漢語"), script("漢字かな")
      ('SC', 'TC', 'JP')
    """
    if any("぀" <= c <= "ヿ" for c in characters):
        return "JP"
    if any("가" <= c <= "힣" for c in characters):
        return "KR"
    simplified, traditional = (sum(_encodes(c, codec) for c in characters) for codec in ("gb2312", "big5"))
    return "SC" if simplified >= traditional else "TC"


def _encodes(character: str, codec: str) -> bool:
    try:
        return bool(character.encode(codec))
    except UnicodeEncodeError:
        return False


def chosen(face: Face, characters: Collection[str]) -> int:
    """Return the number of the face to draw: the one asked for, or the one for the script of the characters.

    Collections for several scripts, such as Noto CJK, name their faces after regions; face 0 is often the Japanese one,
    which draws 直 and 骨 differently.

    Raises:
      UserError: the file is not a font, or has no such face.
    """
    if face.path.suffix.lower() not in COLLECTIONS:
        if face.number:
            raise UserError(f"{face.path}: has one face; #{face.number} needs a collection ({', '.join(COLLECTIONS)})")
        return 0
    names = face_names(face.path)
    if face.number is not None:
        if face.number >= len(names):
            raise UserError(f"{face.path}: no face {face.number}; expected 0 to {len(names) - 1}: {', '.join(names)}")
        return face.number
    suffixes = REGIONS[script(characters)]
    return next((i for i, name in enumerate(names) if set(re.split(r"[\s-]+", name)) & set(suffixes)), 0)


def face_names(path: Path) -> list[str]:
    """Return the family names of the faces of a collection.

    Raises:
      UserError: it is not one.
    """

    def names() -> list[str]:
        from fontTools.ttLib import TTCollection

        with path.open("rb") as file, TTCollection(file, lazy=True) as collection:
            return [str(font["name"].getDebugName(1) or "") for font in collection.fonts]

    return _reading(path, names)


def code_points(path: Path, index: int = 0) -> set[int]:
    """Return the code points that a face maps to a glyph.

    Raises:
      UserError: the file is not a font, or the package fonttools is not installed.
    """

    def table() -> dict[int, str]:
        from fontTools.ttLib import TTFont

        with path.open("rb") as file, TTFont(file, fontNumber=index, lazy=True) as font:
            return font.getBestCmap() or {}

    return {code for code, glyph in _reading(path, table).items() if glyph != ".notdef"}


def _reading(path: Path, read: Callable[[], T]) -> T:
    try:
        from fontTools.ttLib import TTLibError
    except ImportError:
        raise UserError("reading fonts needs the package fonttools; install the extra 'data'") from None
    try:
        return read()
    except (TTLibError, OSError, AssertionError, KeyError, ValueError) as error:
        raise UserError(
            f"{path}: not a font ({str(error) or type(error).__name__}); expected TrueType or OpenType"
        ) from None
