"""Glyph atlases: the embedded one, and fonts made here, with glyphs that are missing in each way they can be."""

import string
from importlib import resources

import numpy as np
import pytest

from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render import atlas as atlases
from jaxcrnn.render import fonts
from jaxcrnn.render.texts import GROUPS


def test_embedded_atlas_covers_groups_digits_and_letters():
    atlas = atlases.embedded()
    assert set(string.digits + string.ascii_letters) | set("".join(read_groups(GROUPS))) == set(atlas.characters)
    assert len(atlas.fonts) == 3
    assert atlas.present.all()
    assert (atlas.tiles.max((2, 3)) > 150).all()
    han = [i for i, c in enumerate(atlas.characters) if ord(c) > 0x4E00]
    np.testing.assert_allclose(atlas.advances[:, han], 1, atol=0.05)
    assert (atlas.advances[:, atlas.characters.index("1")] < 0.7).all()
    folder = resources.files("jaxcrnn") / "resources"
    assert (folder / "atlas.npz").stat().st_size < 2_000_000
    for notice in ("fonts-arphic-gbsn00lp", "fonts-arphic-gkai00mp", "fonts-wqy-microhei"):
        assert "opyright" in (folder / f"{notice}.copyright").read_text(encoding="utf-8")


def test_select_keeps_order_and_marks_missing_glyphs():
    atlas = atlases.embedded()
    chosen = atlas.select("士\u00e9土")
    assert chosen.present.tolist() == [[True, False, True]] * 3
    assert not chosen.tiles[:, 1].any()
    np.testing.assert_array_equal(chosen.tiles[:, 2], atlas.tiles[:, atlas.characters.index("土")])
    assert chosen.missing() == dict.fromkeys(atlas.fonts, "\u00e9")
    assert atlases.common("土\u00e9士", atlas) == "土士"


def box(left, right):
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    if right > left:
        pen.moveTo((left, 0))
        for point in ((left, 700), (right, 700), (right, 0)):
            pen.lineTo(point)
        pen.closePath()
    return pen.glyph()


@pytest.fixture
def font(tmp_path):
    """A font of 1000 units an em with A, B (wider), a space, E mapped to an empty glyph, and no D at all."""
    builder = pytest.importorskip("fontTools.fontBuilder", reason="the data extra is not installed").FontBuilder(1000)
    shapes = {".notdef": (0, 900), "A": (100, 400), "B": (100, 900), "space": (0, 0), "E": (0, 0), "nothing": (0, 0)}
    builder.setupGlyphOrder(list(shapes))
    builder.setupCharacterMap({65: "A", 66: "B", 32: "space", 69: "E", 70: ".notdef"})
    builder.setupGlyf({name: box(*shape) for name, shape in shapes.items()})
    builder.setupHorizontalMetrics({name: (500 if name == "A" else 1000, left) for name, (left, _) in shapes.items()})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Test", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    path = tmp_path / "fonts" / "test.ttf"
    path.parent.mkdir()
    builder.save(path)
    return path


def test_glyphs_are_drawn_and_missing_ones_are_marked(font):
    atlas = atlases.build("ABDEF ", [font], cached=False)
    # D is not in the font, E has no ink, F is mapped to the box that stands for missing glyphs.
    assert atlas.present.tolist() == [[True, True, False, False, False, True]]
    assert atlas.missing() == {"test": "DEF"}
    assert not atlas.tiles[0, 2:].any()
    np.testing.assert_allclose(atlas.advances[0, :2], [0.5, 1.0])
    rows, columns = np.nonzero(atlas.tiles[0, 1] > 128)
    assert (rows.max() + 1, columns.max() + 1 - columns.min()) == (atlases.BASELINE, round(0.8 * atlases.EM))
    # The middle of the advance is the middle of the tile: B reaches from 0.1 to 0.9 of an em, A from 0.1 to 0.4 of 0.5.
    assert abs((columns.min() + columns.max() + 1) / 2 - atlases.SIZE / 2) <= 0.5
    columns = np.nonzero(atlas.tiles[0, 0] > 128)[1]
    assert abs((columns.min() + columns.max() + 1) / 2 - atlases.SIZE / 2) <= 0.5


def test_cache_is_reused_and_replaced_if_corrupted(font, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    drawn = []
    original = atlases._draw
    monkeypatch.setattr(atlases, "_draw", lambda *args: drawn.append(1) or original(*args))
    one, two = atlases.build("AB", [font]), atlases.build("AB", [font])
    assert len(drawn) == 1
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)
    atlases.build("BA", [font])
    assert len(drawn) == 2
    for kept in (tmp_path / "cache" / "jaxcrnn").iterdir():
        kept.write_bytes(kept.read_bytes()[:100])
    np.testing.assert_array_equal(atlases.build("AB", [font]).tiles, one.tiles)
    assert len(drawn) == 3


def test_invalid_fonts_are_rejected(font, tmp_path, capsys):
    with pytest.raises(UserError, match="no such folder"):
        fonts.find(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no fonts; expected"):
        fonts.find(tmp_path / "empty")
    (tmp_path / "link.ttf").symlink_to(tmp_path / "missing.ttf")
    assert fonts.find(tmp_path) == [fonts.Face(font)]
    assert f"{tmp_path}: skipping 1 link to missing files, such as {tmp_path / 'link.ttf'}\n" == capsys.readouterr().err
    (tmp_path / "link.ttf").unlink()
    text = tmp_path / "text.ttf"
    text.write_text("this is no font")
    with pytest.raises(UserError, match=r"text\.ttf: not a font"):
        atlases.build("A", [text], cached=False)
    cut = tmp_path / "cut.ttf"
    cut.write_bytes(font.read_bytes()[:200])
    with pytest.raises(UserError, match=r"cut\.ttf: "):
        atlases.build("A", [cut], cached=False)
    other = tmp_path / "other.npz"
    np.savez(other, x=np.zeros(1))
    with pytest.raises(UserError, match="not a glyph atlas"):
        atlases.load(other)


def family(path, name, left):
    from fontTools.fontBuilder import FontBuilder

    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "bone"])
    builder.setupCharacterMap({ord("骨"): "bone"})
    builder.setupGlyf({".notdef": box(0, 900), "bone": box(left, 900)})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "bone": (1000, left)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def collection(tmp_path):
    """A collection whose faces draw one character with different left edges."""
    ttc = pytest.importorskip("fontTools.ttLib", reason="the data extra is not installed")
    made = ttc.TTCollection()
    for number, name in enumerate(("Test Sans JP", "Test Sans KR", "Test Sans SC", "Test Sans TC")):
        family(tmp_path / f"{number}.ttf", name, 100 * number)
        made.fonts.append(ttc.TTFont(tmp_path / f"{number}.ttf"))
        (tmp_path / f"{number}.ttf").unlink()
    made.save(tmp_path / "sans.ttc")
    return tmp_path / "sans.ttc"


@pytest.mark.parametrize(("characters", "face"), [("骨汉语", 2), ("骨漢語", 3), ("骨かな", 0), ("骨한", 1), ("骨", 2)])
def test_face_of_a_collection_follows_the_script(collection, characters, face):
    asked = atlases.build(characters, [fonts.Face(collection, face)], cached=False)
    chosen = atlases.build(characters, [collection], cached=False)
    np.testing.assert_array_equal(chosen.tiles, asked.tiles)
    assert (chosen.fonts, asked.fonts) == (("sans",), (f"sans#{face}",))
    columns = np.nonzero(chosen.tiles[0, 0] > 128)[1]
    assert abs(columns.min() - (atlases.SIZE - atlases.EM) / 2 - 0.1 * face * atlases.EM) <= 1


def test_face_of_a_collection_can_be_asked_for(collection, font):
    assert atlases.of_fonts(f"{collection}#1", "骨").fonts == ("sans#1",)
    with pytest.raises(UserError, match="no face 4; expected 0 to 3: Test Sans JP"):
        atlases.of_fonts(f"{collection}#4", "骨")
    with pytest.raises(UserError, match="has one face"):
        atlases.of_fonts(f"{font}#1", "A")


def test_atlas_command_writes_a_file_that_replaces_the_fonts(collection, font, tmp_path, capsys):
    (tmp_path / "chars.txt").write_text("骨\nA\n", encoding="utf-8")
    out = tmp_path / "atlas.npz"
    arguments = ["lookalikes", "atlas", "--charset", str(tmp_path / "chars.txt"), "--out", str(out)]
    places = ["--fonts", str(font.parent), "--fonts", f"{collection}#3", "--fonts", str(collection)]
    assert main([*arguments, *places, "--without", "sans"]) == 0
    assert "2 characters in 2 typefaces" in capsys.readouterr().out
    atlas = atlases.of_fonts(str(out), "A骨")
    assert atlas.fonts == ("test", "sans#3")
    assert atlas.present.tolist() == [[True, False], [False, True]]
    np.testing.assert_array_equal(atlas.tiles[0, 0], atlases.build("A", [font], cached=False).tiles[0, 0])
    for wrong, message in (
        (["--typefaces", "tset"], "unknown typeface 'tset'; expected some of test, sans#3, sans"),
        (["--without", "test", "sans", "sans#3"], "no typeface is left"),
        (["--fonts", str(font)], "two typefaces are named 'test'"),
    ):
        assert main([*arguments, *places, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_typefaces_can_be_left_out():
    atlas = atlases.embedded()
    assert atlas.only(without=atlas.fonts[:1]).fonts == atlas.fonts[1:]
    assert atlas.only(atlas.fonts[:2], atlas.fonts[:1]).fonts == atlas.fonts[1:2]
    with pytest.raises(UserError, match="no typeface is left"):
        atlas.only(without=atlas.fonts)
    with pytest.raises(UserError, match="unknown typeface 'none'"):
        atlas.only(without=["none"])


def test_compact_atlas_is_the_same_in_16_shades(tmp_path):
    whole = atlases.embedded().select("未末A1。")
    atlases.save(whole, tmp_path / "whole.npz")
    atlases.save(whole, tmp_path / "compact.npz", compact=True)
    loaded = atlases.load(tmp_path / "compact.npz")
    assert loaded.fonts == whole.fonts
    assert loaded.characters == whole.characters
    np.testing.assert_array_equal(loaded.advances, whole.advances)
    np.testing.assert_array_equal(loaded.present, whole.present)
    np.testing.assert_array_equal(loaded.tiles, np.round(whole.tiles / 17).astype(int) * 17)
    np.testing.assert_array_equal(atlases.load(tmp_path / "whole.npz").tiles, whole.tiles)
    sizes = [(tmp_path / f"{name}.npz").stat().st_size for name in ("compact", "whole")]
    assert sizes[0] < 0.75 * sizes[1]
    assert len(list(tmp_path.iterdir())) == 2
