"""The training of `make pretrain`: texts of batches, sittings, losses, starts, and what it writes."""

import json
import shutil
import sys
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("scripts_can_be_imported")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of data as atlas.py and words.py write it, with the characters of the package's own typefaces."""
    from jaxcrnn.charset import Charset
    from jaxcrnn.render import atlas

    folder = tmp_path_factory.mktemp("pretrain") / "data"
    folder.mkdir()
    whole = atlas.embedded()
    characters = "".join(sorted({*"0123456789abc：-.", *"未末土士己已日曰目"} & set(whole.characters)))
    Charset(characters).save(folder / "charset.txt")
    atlas.save(whole.select(characters), folder / "atlas.npz", compact=True)
    (folder / "groups.txt").write_text("未末\n土士\n日曰目\n", encoding="utf-8")
    (folder / "texts.yaml").write_text(
        "- {kind: uniform, weight: 1}\n- {kind: lookalikes, weight: 1, groups: groups.txt}\n", encoding="utf-8"
    )
    return folder


RUNS = ("once", "trained", "between")
TINY = ("--steps=5", "--scale=0.01", "--hidden=8", "--channels=16", "--buckets=1", "--level=medium")


def trained(monkeypatch, data, out, *options):
    import train

    monkeypatch.setattr(sys, "argv", ["train.py", str(data), str(out), *TINY, *options])
    return train.main()


def test_batches_of_a_bucket_never_repeat_texts(data):
    import labels as drawing

    from jaxcrnn.charset import Charset

    charset = Charset.from_file(data / "charset.txt")
    buckets = [bucket._replace(lines=7) for bucket in drawing.BUCKETS]
    labels = drawing.Labels(data, charset, "".join(charset.characters), buckets, drawing.CYCLE, 5)
    drawn = [labels.next(number) for number in range(10)]
    labels.thread.shutdown(cancel_futures=True)
    for number, (rows, lengths) in enumerate(drawn):
        bucket = drawing.BUCKETS[drawing.CYCLE[number % 5]]
        assert rows.shape == (7, bucket.longest)
        assert lengths.min() >= bucket.shortest
        np.testing.assert_array_equal(rows, labels.of_step(number)[0])
    first = np.concatenate([drawn[number][0] for number in (0, 2, 5, 7)])
    indices = labels.texts.labels(charset, np.arange(28), 1, 8)[0]
    np.testing.assert_array_equal(first, indices)


@pytest.mark.slow
def test_training_in_sittings_equals_training_at_once(data, monkeypatch, tmp_path, capsys):
    import train

    from jaxcrnn import load

    assert trained(monkeypatch, data, tmp_path / "once") == 0

    class Stopping(list):
        """Signals: one arrives before the third step of the first sitting."""

        def __bool__(self):
            self.append(0)
            return len(self) == 3

    @contextmanager
    def stop_flag():
        yield Stopping()

    with monkeypatch.context() as patch:
        patch.setattr(train, "stop_flag", stop_flag)
        assert trained(patch, data, tmp_path / "twice") == train.NOT_FINISHED
    assert not (tmp_path / "twice/recognizer").exists()
    assert trained(monkeypatch, data, tmp_path / "twice") == 0
    about = [json.loads((tmp_path / run / "about.json").read_text()) for run in ("once", "twice")]
    assert [(entry["steps"], entry["lines"], entry["sittings"]) for entry in about] == [(5, 35, 1), (5, 35, 2)]
    weights = [(tmp_path / run / "recognizer/model.safetensors").read_bytes() for run in ("once", "twice")]
    assert weights[0] == weights[1]
    assert sorted(path.name for path in (tmp_path / "twice").iterdir()) == ["about.json", "metrics.jsonl", "recognizer"]
    capsys.readouterr()
    assert trained(monkeypatch, data, tmp_path / "twice") == 0
    assert "nothing to do" in capsys.readouterr().out

    # The weights can be gone on from, within a number of seconds, and compared with those before.
    monkeypatch.setattr(train, "SAVING", 0)
    options = f"--init={tmp_path / 'once/recognizer'}", "--buckets=1", "--scale=0.01", "--level=medium", "--within=1e-9"
    monkeypatch.setattr(sys, "argv", ["train.py", str(data), str(tmp_path / "more"), *options])
    assert train.main() == 0
    assert json.loads((tmp_path / "more/about.json").read_text())["steps"] <= 1
    assert load(tmp_path / "more/recognizer").charset.hash == load(tmp_path / "once/recognizer").charset.hash

    # With other lines, and with the mean of the trained weights and of those at the start.
    start = f"--init={tmp_path / 'once/recognizer'}"
    assert trained(monkeypatch, data, tmp_path / "trained", start, "--seed=6", "--lr=1") == 0
    assert trained(monkeypatch, data, tmp_path / "between", start, "--seed=6", "--lr=1", "--interpolate=0.25") == 0
    heads = [load(tmp_path / run / "recognizer").variables["params"]["head"]["kernel"] for run in RUNS]
    assert np.abs(heads[1] - heads[0]).max() > 0.01
    np.testing.assert_allclose(heads[2], 0.75 * heads[0] + 0.25 * heads[1], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_a_loss_with_centers_trains_other_weights_than_plain_ctc(data, monkeypatch, tmp_path, capsys):
    from jaxcrnn import load

    loss = "preset=aligned", "weight=0.5", "start=normal"
    assert trained(monkeypatch, data, tmp_path / "ctc", "--lr=1") == 0
    assert trained(monkeypatch, data, tmp_path / "aligned", "--lr=1", "--loss", *loss) == 0
    about = json.loads((tmp_path / "aligned/about.json").read_text())
    assert about["arguments"]["loss"] == list(loss)
    one, two = (load(tmp_path / run / "recognizer").variables["params"]["head"]["kernel"] for run in ("ctc", "aligned"))
    assert np.abs(one - two).max() > 1e-3
    assert trained(monkeypatch, data, tmp_path / "wrong", "--loss", "presets=aligned") == 2
    assert "loss.presets" in capsys.readouterr().err


@pytest.mark.slow
def test_missing_data_is_named_in_one_line(data, monkeypatch, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data/atlas.npz").write_bytes(b"not an atlas")
    assert trained(monkeypatch, tmp_path / "data", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "atlas.npz: not a glyph atlas" in error
    assert trained(monkeypatch, tmp_path / "nowhere", tmp_path / "out") == 2
    assert "nowhere/charset.txt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_weights_of_another_charset_are_refused(data, monkeypatch, tmp_path, capsys):
    assert trained(monkeypatch, data, tmp_path, "--init=pretrained") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--init pretrained: has other characters (6966)" in error


def test_weights_trained_from_nothing_read_as_those_of_the_package():
    import models

    import jaxcrnn

    reader = jaxcrnn.load()
    args = SimpleNamespace(init=None, height=64, hidden=192, channels=384)
    model, start, limits = models.model_of(args, reader.charset)
    assert (start, limits) == (None, reader.limits)
    assert (model.backbone, model.height, model.layers()) == ("vgg-fine", 64, reader.model.layers())


@pytest.mark.slow
def test_weights_for_32_pixels_are_gone_on_from_at_64(data, monkeypatch, tmp_path, capsys):
    from jaxcrnn import load

    assert trained(monkeypatch, data, tmp_path / "start") == 0
    start = f"--init={tmp_path / 'start/recognizer'}"
    assert trained(monkeypatch, data, tmp_path / "fine", start, "--height=64", "--lr=1e-9") == 0
    before, after = (load(tmp_path / run / "recognizer") for run in ("start", "fine"))
    assert (after.model.backbone, after.model.height, after.limits.max_width) == ("vgg-fine", 64, 8192)
    kernels = [reader.variables["params"]["backbone"]["conv0"]["kernel"] for reader in (before, after)]
    np.testing.assert_allclose(kernels[1], np.kron(kernels[0], np.full((2, 2, 1, 1), 0.25)), rtol=0, atol=1e-4)

    again = f"--init={tmp_path / 'fine/recognizer'}"
    assert trained(monkeypatch, data, tmp_path / "again", again, "--lr=1e-9") == 0
    assert load(tmp_path / "again/recognizer").model.height == 64
    assert trained(monkeypatch, data, tmp_path / "coarse", again, "--height=32") == 2
    assert "has the backbone vgg-fine for lines of 64 pixels; expected no --height" in capsys.readouterr().err


@pytest.mark.slow
def test_losses_start_from_centers_estimated_with_the_given_weights(data, monkeypatch, tmp_path, capsys):
    import estimation

    assert trained(monkeypatch, data, tmp_path / "start") == 0
    start = f"--init={tmp_path / 'start/recognizer'}"
    kept = []

    def exact(config, state, centers, batch):
        """As if every line was read exactly; five steps do not suffice for that."""
        kept.append(batch.labels.shape)
        return centers._replace(centers=centers.centers + 1, counts=centers.counts + 1), len(batch.labels)

    monkeypatch.setattr(estimation, "estimate_step", exact)
    loss = "--loss", "preset=flow2", "weight=0.1"
    assert trained(monkeypatch, data, tmp_path / "flow2", start, "--estimate=3", *loss) == 0
    assert kept == [(7, 8)]  # compiled once for the only bucket
    assert "centers estimated from 21 of 21 lines; 0 classes were not in them" in capsys.readouterr().out


def test_centers_are_not_estimated_with_random_weights(data, monkeypatch, tmp_path, capsys):
    assert trained(monkeypatch, data, tmp_path / "flow2", "--loss", "preset=flow2") == 2
    assert "the centers are estimated with the weights of --init" in capsys.readouterr().err
