"""Build the glyph atlas of the package: look-alikes, digits and Latin letters in three typefaces.

python scripts/make_atlas.py FONTS

The look-alikes are those of jaxcrnn/resources/groups.txt. Writes atlas.npz and the copyright notices of the fonts to
jaxcrnn/resources.
"""

import argparse
import string
from pathlib import Path

from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render import atlas

RESOURCES = Path(atlas.__file__).parents[1] / "resources"
FONTS = ("gbsn00lp.ttf", "gkai00mp.ttf", "wqy-microhei.ttc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "fonts",
        type=Path,
        help="folder with gbsn00lp.ttf (Song), gkai00mp.ttf (Kai), wqy-microhei.ttc (Hei) and their copyright notices",
    )
    folder = parser.parse_args().fonts
    plain = string.digits + string.ascii_letters
    han = [c for group in read_groups(RESOURCES / "groups.txt") for c in group if c not in plain]
    built = atlas.build(plain + "".join(han), [folder / name for name in FONTS], cached=False)
    if built.missing():
        raise SystemExit(f"missing: {built.missing()}")
    path = RESOURCES / "atlas.npz"
    atlas.save(built, path)
    for name in ("fonts-arphic-gbsn00lp", "fonts-arphic-gkai00mp", "fonts-wqy-microhei"):
        text = (folder / f"{name}.copyright").read_text(encoding="utf-8")
        (RESOURCES / f"{name}.copyright").write_text(text, encoding="utf-8")
    print(f"{path}: {len(built.characters)} characters, {len(built.fonts)} fonts, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
