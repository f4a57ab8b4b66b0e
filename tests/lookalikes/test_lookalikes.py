"""Finding look-alikes: similarity of glyphs, groups, confusions, and the command."""

import numpy as np
import pytest
from PIL import Image

from jaxcrnn.cli.main import main
from jaxcrnn.lookalikes import confusions, similarity
from jaxcrnn.lookalikes.groups import read_groups, write_groups
from jaxcrnn.render.atlas import embedded

ASKED = "未末 土士 己已 已巳 日曰 戊戌 人入 干千 治冶 折拆 免兔 鸟乌 师帅 亳毫 侯候".split()


def bars(*boxes):
    tile = np.zeros((40, 40), np.uint8)
    for top, bottom, left, right in boxes:
        tile[top:bottom, left:right] = 255
    return tile


def test_similarity_tolerates_shift_and_scale():
    cross = bars((18, 22, 6, 34), (6, 34, 18, 22))
    tall = bars((6, 34, 12, 16), (6, 34, 24, 28), (6, 10, 12, 28), (18, 22, 12, 28), (30, 34, 12, 28))
    wide = bars((10, 30, 6, 10), (10, 30, 30, 34), (10, 14, 6, 34), (18, 22, 6, 34), (26, 30, 6, 34))
    tiles = np.stack([cross, np.roll(cross, (2, -2), (0, 1)), tall, wide, bars((6, 10, 6, 34), (30, 34, 6, 34))])[None]
    neighbours = similarity.neighbours(tiles, np.ones((1, 5), bool), count=4)
    assert neighbours.indices[:, 0].tolist()[:4] == [1, 0, 3, 2]
    scores = similarity.known_scores(neighbours)
    assert scores[0, 1] > 0.97
    assert scores[2, 3] > 0.8
    assert max(scores[0, j] for j in (2, 3, 4)) < 0.7


def test_only_fonts_with_both_glyphs_count():
    rng = np.random.default_rng(0)
    tiles = rng.integers(0, 2, (2, 3, 40, 40)).astype(np.uint8) * 255
    tiles[1, 1] = tiles[1, 0]
    tiles[0, 1] = 0
    present = np.asarray([[True, False, True], [True, True, True]])
    scores = similarity.known_scores(similarity.neighbours(tiles, present, count=2))
    np.testing.assert_allclose(scores[0, 1], 1, atol=1e-5)
    nobody = similarity.neighbours(tiles, np.asarray([[True, False, True], [False, True, False]]), count=2)
    assert similarity.known_scores(nobody)[0, 1] == -1


def test_chunk_size_does_not_affect_neighbours():
    atlas = embedded()
    tiles, present = atlas.tiles[:, 60:160], atlas.present[:, 60:160]
    one, two = (similarity.neighbours(tiles, present, rows=rows) for rows in (100, 7))
    np.testing.assert_array_equal(one.indices, two.indices)
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)


def test_groups_merge_only_if_all_pairs_are_similar():
    pairs = {(0, 1): 0.95, (1, 2): 0.9, (3, 4): 0.8, (4, 5): 0.85, (5, 6): 0.81}
    scores = {**pairs, (0, 2): 0.82, (3, 5): 0.5, (4, 6): 0.83}
    assert similarity.merge(pairs, scores) == [[0, 1, 2], [4, 5, 6]]
    assert similarity.merge(pairs, scores, largest=2) == [[0, 1], [4, 5]]
    assert similarity.merge(pairs, pairs) == [[0, 1], [4, 5]]


def test_confusions_from_edit_alignment():
    truths, read = zip(("未来", "末来"), ("未土", "末"), ("己已日", "己己日"), ("", "a"), ("日", ""), strict=True)
    pairs = confusions.score(read, truths, groups=[]).confusions
    assert {(c.written, c.read): c.times for c in pairs if c.written and c.read} == {("未", "末"): 2, ("已", "己"): 1}


def test_agreement_with_a_reference_table():
    table = [frozenset(p) for p in ("ab", "bc", "xy", "qz")]
    agreement = similarity.agreement(["abc", "de"], table, "abcdexy")
    assert agreement == (pytest.approx(2 / 4), pytest.approx(2 / 3), 4, 3)


def test_mine_groups_from_the_embedded_atlas(tmp_path, capsys):
    out, sheet = tmp_path / "g.txt", tmp_path / "g.png"
    arguments = ["lookalikes", "mine", "--fonts", "embedded", "--out", str(out), "--picture", str(sheet)]
    assert main(arguments) == 0
    groups = read_groups(out)
    assert f"{len(groups)} groups" in capsys.readouterr().out
    together = {frozenset((a, b)) for group in groups for a in group for b in group if a != b}
    assert not [pair for pair in ASKED if frozenset(pair) not in together]
    assert max(map(len, groups)) <= 6
    with Image.open(sheet) as image:
        assert image.size[0] > 1000
        assert np.asarray(image).min() < 50


def test_table_pairs_are_filtered_by_glyph_similarity(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("未\t末\t8\n", encoding="utf-8")
    (tmp_path / "c.txt").write_text("未\n末\n8\n", encoding="utf-8")
    plain = ["lookalikes", "mine", "--charset", str(tmp_path / "c.txt"), "--table", str(tmp_path / "t.txt")]
    assert main([*plain, "--fonts", "embedded", "--out", str(tmp_path / "g.txt")]) == 0
    assert read_groups(tmp_path / "g.txt") == ["未末"]
    assert "1 of 3 pairs of t.txt" in capsys.readouterr().out
    assert main([*plain, "--out", str(tmp_path / "g.txt")]) == 0
    assert read_groups(tmp_path / "g.txt") == ["未末8"]
    # What a file of groups cannot hold is said, and what no font has cannot be compared.
    (tmp_path / "t.txt").write_text("未\t末\n#\t8\n龘\t8\n", encoding="utf-8")
    (tmp_path / "c.txt").write_text("未\n末\n8\n#\n龘\n", encoding="utf-8")
    assert main([*plain, "--out", str(tmp_path / "g.txt")]) == 0
    assert sorted(read_groups(tmp_path / "g.txt")) == ["8龘", "未末"]
    assert "1 pairs with a space or '#' dropped" in capsys.readouterr().out
    assert main([*plain, "--fonts", "embedded", "--out", str(tmp_path / "g.txt")]) == 0
    shown = capsys.readouterr().out
    assert "gbsn00lp is missing 2 of 5 characters: # 龘" in shown
    assert "1 of 3 pairs of t.txt (2 with a character that no font has)" in shown


def test_pair_similarities_match_neighbour_scores():
    atlas = embedded()
    neighbours = similarity.neighbours(atlas.tiles[:, :40], atlas.present[:, :40], count=39)
    scores = similarity.known_scores(neighbours)
    pairs = np.asarray([(i, j) for i in range(40) for j in range(i)])
    expected = [(scores[int(i), int(j)] + scores[int(j), int(i)]) / 2 for i, j in pairs]
    np.testing.assert_allclose(
        similarity.similarities(atlas.tiles, atlas.present, pairs, rows=100), expected, atol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{tmp}/g.txt"], "no source of look-alikes"),
        (["--table", "{tmp}/t.txt", "--out", "{tmp}/g.txt"], "give --charset FILE"),
        (["--fonts", "embedded", "--out", "{tmp}/no/g.txt"], "expected a file in an existing folder"),
        (["--fonts", "{tmp}/none", "--charset", "{tmp}/c.txt", "--out", "{tmp}/g.txt"], "no such folder"),
        (["--table", "{tmp}/t.txt", "--out", "{tmp}/g.txt", "--picture", "{tmp}/g.png"], "--picture requires --fonts"),
        (
            ["--fonts", "embedded", "--out", "{tmp}/g.png", "--picture", "{tmp}/g.png"],
            "used for both --out and --picture",
        ),
        (["--fonts", "embedded", "--out", "{tmp}/g.txt", "--picture", "{tmp}/g.xyz"], "unknown image suffix"),
        (["--fonts", "embedded", "--out", "{tmp}/g.txt", "--largest", "1"], "--largest 1: expected 2 or more"),
        (["--fonts", "embedded", "--out", "{tmp}/g.txt", "--data", "d.txt"], "--data requires --run"),
        (["--fonts", "embedded", "--similarity", "2", "--out", "{tmp}/g.txt"], "expected more than 0, at most 1"),
        (["--fonts", "embedded", "--charset", "{tmp}/one.txt", "--out", "{tmp}/g.txt"], "no look-alikes found among 2"),
    ],
)
def test_user_errors_print_one_line(arguments, message, tmp_path, capsys):
    (tmp_path / "t.txt").write_text("未\t末\n", encoding="utf-8")
    (tmp_path / "c.txt").write_text("未\n末\n", encoding="utf-8")
    (tmp_path / "one.txt").write_text("一\n8\n", encoding="utf-8")
    assert main(["lookalikes", "mine", *(a.format(tmp=tmp_path) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_writing_groups_to_a_missing_folder_fails(tmp_path):
    from jaxcrnn.errors import UserError

    with pytest.raises(UserError, match="expected a writable file"):
        write_groups(tmp_path / "no" / "g.txt", ["ab"])
