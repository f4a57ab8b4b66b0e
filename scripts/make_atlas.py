"""Makes the atlas that the package brings: jaxcrnn/resources/groups.txt, digits and Latin letters in three typefaces.

python scripts/make_atlas.py FONTS    # a folder with gbsn00lp.ttf (Song), gkai00mp.ttf (Kai), wqy-microhei.ttc (Hei)
"""

import string
import sys
from pathlib import Path

from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render import atlas

RESOURCES = Path(atlas.__file__).parents[1] / "resources"
FONTS = ("gbsn00lp.ttf", "gkai00mp.ttf", "wqy-microhei.ttc")


def main(folder: Path) -> None:
    plain = string.digits + string.ascii_letters
    han = [c for group in read_groups(RESOURCES / "groups.txt") for c in group if c not in plain]
    made = atlas.build(plain + "".join(han), [folder / name for name in FONTS], cached=False)
    if made.missing():
        raise SystemExit(f"missing: {made.missing()}")
    path = RESOURCES / "atlas.npz"
    atlas.save(made, path)
    for name in ("fonts-arphic-gbsn00lp", "fonts-arphic-gkai00mp", "fonts-wqy-microhei"):
        text = (folder / f"{name}.copyright").read_text(encoding="utf-8")
        (RESOURCES / f"{name}.copyright").write_text(text, encoding="utf-8")
    print(f"{path}: {len(made.characters)} characters, {len(made.fonts)} fonts, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
