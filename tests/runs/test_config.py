import numpy as np
import pytest

from jaxcrnn import Charset, UserError
from jaxcrnn.nn.imported import Imported
from jaxcrnn.runs import config as configs
from jaxcrnn.runs import datasets


def test_overrides_replace_file_values(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("optim:\n  steps: 7\n  learning_rate: 1e-3\nmodel: {backbone: vgg}\n")
    config = configs.load(path, ["optim.steps=9", "data.val=none.txt", "augment.noise=0", "data.train=12"])
    assert config.optim.steps == 9
    assert config.optim.learning_rate == 1e-3
    assert config.model.backbone == "vgg"
    assert config.augment.noise == 0.0
    assert (config.data.val, config.data.train) == ("none.txt", "12")


def test_config_round_trip(tmp_path):
    config = configs.load(None, ["optim.learning_rate=3e-4", "run.seed=5"])
    (tmp_path / "c.yaml").write_text(configs.to_yaml(config))
    assert configs.load(tmp_path / "c.yaml") == config
    assert "num_classes" not in configs.to_yaml(config)


def test_classes_are_taken_from_the_charset():
    model = configs.load().for_charset(Charset("abc", "last")).model
    assert (model.num_classes, model.blank) == (4, 3)


def test_lines_are_rendered_as_high_as_the_model_reads_them():
    config = configs.load(None, ["model.height=48", "text.share=1", "text.source=lookalikes", "data.batch_size=2"])
    (_, batch), *_ = datasets.stream(config, Charset("土士"), None).training(0, 1)
    rows = np.flatnonzero(np.asarray(batch.images)[0, :, :, 0].min(1) < 0)
    assert batch.images.shape[1] == 48
    assert rows.max() - rows.min() > 16  # the characters are larger, too
    odd = configs.load(None, ["model.height=36", "text.share=1", "text.source=lookalikes"])
    with pytest.raises(UserError, match=r"model.height is 36; expected a multiple of 8 for rendered lines"):
        datasets.stream(odd, Charset("土士"), None)


def test_keys_of_earlier_versions_are_accepted(tmp_path, monkeypatch):
    path = tmp_path / "c.yaml"
    path.write_text("model: {backbone: tiny, black: 1.0, white: 0.0, rows: mean, two_biases: true}\n")
    config = configs.load(path, ["model.colors=3", "imported.channels=16"])
    assert config.imported == Imported(True, 16, "mean", 3, 1.0, 0.0)
    assert config.model.backbone == "tiny"
    assert config.model.imported == config.imported == config.for_charset(Charset("ab")).model.imported
    path.write_text(configs.to_yaml(config))
    assert "imported:\n  two_biases: true\n  channels: 16\n" in path.read_text()
    assert configs.load(path) == configs.load(None, [], base=config) == config
    with pytest.raises(UserError, match=r"c.yaml: model.black is 'x'; expected a number"):
        configs.build([({"model": {"black": "x"}}, "c.yaml")])
    monkeypatch.setitem(configs.REMOVED, "optim.gone", (1, "it did nothing"))
    assert configs.build([({"optim": {"gone": 1, "steps": 3}}, "c.yaml")]).optim.steps == 3
    for value in (2, True, "1"):
        with pytest.raises(UserError, match=rf"optim.gone is {value!r}, but the key was removed in version 0.2: it"):
            configs.build([({"optim": {"gone": value}}, "c.yaml")])


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("optm: {steps: 1}", [], r"c.yaml: unknown section 'optm'; did you mean 'optim'\?"),
        ("optim: {stepz: 1}", [], r"unknown key 'stepz' in 'optim'; did you mean 'steps'\?"),
        ("optim: {steps: many}", [], "optim.steps is 'many'; expected a whole number"),
        ("optim: {steps: 1.5}", [], "optim.steps is 1.5; expected a whole number"),
        ("optim: {steps: true}", [], "expected a whole number"),
        ("optim: 3", [], "section 'optim' is 3; expected keys and values"),
        ("- 3", [], "expected sections such as 'optim:', found list"),
        ("optim: {steps: 1", [], "c.yaml, line 2: invalid YAML"),
        ("", ["optim.steps"], "--set optim.steps: expected section.key=value"),
        ("", ["steps=3"], "expected section.key=value"),
        ("", ["model.num_classes=3"], "unknown key 'num_classes' in 'model'"),
        ("", ["optim.learning_rate=fast"], "learning_rate is 'fast'; expected a number"),
        ("", ["data.batch_size=0"], "data.batch_size is 0; expected 1 or more"),
        ("data: {repeat_rare: 0.1}", [], r"c.yaml: data.repeat_rare is 0.1, but the key was removed in version 0.2"),
        ("", ["data.repeat_rare=true"], r"--set data.repeat_rare=true: data.repeat_rare is True, but the key was"),
        ("", ["run.log_every=0"], "run.log_every is 0; expected 1 or more"),
        ("", ["imported.colors=2"], "imported.colors is 2; expected 1 for gray or 3"),
        ("", ["model.rows=max"], "imported.rows is 'max'; expected one of flat, mean"),
    ],
)
def test_invalid_configs_are_rejected(tmp_path, text, overrides, message):
    path = tmp_path / "c.yaml"
    path.write_text(text + "\n")
    with pytest.raises(UserError, match=message):
        configs.load(path, overrides)


def test_removed_keys_at_their_default_are_dropped(tmp_path):
    (tmp_path / "c.yaml").write_text("data: {repeat_rare: 0.0, buckets: 3}\nrun: {steps_per_call: 1, seed: 4}\n")
    config = configs.load(tmp_path / "c.yaml", ["data.repeat_rare=0"])
    assert (config.data.buckets, config.run.seed) == (3, 4)
    assert "repeat_rare" not in configs.to_yaml(config)
