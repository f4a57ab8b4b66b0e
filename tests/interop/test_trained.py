"""Trained recognisers by name: what commands do with exported ones and with the weights of the package."""

import functools
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from small_runs import train_args

import jaxcrnn
from jaxcrnn.charset import Charset
from jaxcrnn.cli.main import main
from jaxcrnn.data.images import Limits
from jaxcrnn.errors import UserError
from jaxcrnn.experiments import plan
from jaxcrnn.interop import exported as exported_folders
from jaxcrnn.interop import recognizer, trained
from jaxcrnn.interop.exporters import card, to_safetensors
from jaxcrnn.interop.interpolation import interpolated
from jaxcrnn.interop.recognizer import Recognizer
from jaxcrnn.model import CRNN, ModelConfig
from jaxcrnn.nn.imported import Imported
from jaxcrnn.runs.finer_lines import enlarged
from jaxcrnn.runs.folder import same_model
from jaxcrnn.train import TrainConfig, state_shapes

PACKAGE = Path(jaxcrnn.__file__).parent / "resources" / "pretrained"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder exported as safetensors, of a model that was never trained; nothing is compiled for it."""
    charset = Charset("0123456789", "last")
    model = ModelConfig("tiny", 8, num_classes=charset.num_classes, blank=charset.blank, height=40)
    shapes, rng = state_shapes(TrainConfig(model)), np.random.default_rng(0)
    arrays = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    variables = jax.tree.map(lambda a: rng.uniform(0, 0.2, a.shape).astype(np.float32), arrays)
    out = tmp_path_factory.mktemp("exported") / "model"
    to_safetensors(Recognizer(model, variables, charset, Limits(max_width=900, vertical=True)), out, out)
    return out


def test_names_are_located_by_the_rule_of_load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert exported_folders.located("pretrained") == PACKAGE
    assert trained.place_of("pretrained") == trained.place_of(PACKAGE) == "pretrained"
    assert trained.place_of("runs/mine") == str(tmp_path / "runs" / "mine")
    (tmp_path / "pretrained").mkdir()  # has priority
    assert exported_folders.located("pretrained") == Path("pretrained")
    assert trained.place_of("pretrained") == str(tmp_path / "pretrained")


@pytest.mark.parametrize("shadow", ["folder", "file"])
def test_name_of_the_weights_may_be_taken(shadow, tmp_path, monkeypatch, capsys):
    image = tmp_path / "a.png"
    Image.new("L", (60, 32), 255).save(image)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    if shadow == "folder":
        Path("pretrained").mkdir()
        shutil.copy(image, "pretrained/b.png")
    else:
        shutil.copy(image, "pretrained")
    assert recognizer.load().charset == recognizer.load(PACKAGE).charset
    for arguments, names in ((["../a.png"], ["../a.png"]), (["pretrained", "../a.png"], ["pretrained", "../a.png"])):
        assert main(["recognize", *arguments, "--engine", "onnx"]) == 0
        read = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
        assert read == [name + "/b.png" * (name == "pretrained" and shadow == "folder") for name in names]
    with pytest.raises(UserError, match="expected the weights of the package, but the current folder contains"):
        trained.open_trained("pretrained")


def test_exported_recogniser_takes_the_place_of_a_run(exported):
    opened = trained.open_trained(exported)
    assert opened.place == str(exported)
    assert (opened.config.model.hidden, opened.config.model.height) == (8, 40)
    assert (opened.config.data.blank, opened.config.data.max_width, opened.config.data.vertical) == ("last", 900, True)
    assert opened.facts() == {}
    reader = recognizer.load(exported)
    assert opened.train_config.model == reader.model
    state, step = opened.state()
    assert step == 0
    jax.tree.map(np.testing.assert_array_equal, state.params, reader.variables["params"])
    with pytest.raises(UserError, match="model: an exported model has no checkpoints; drop --checkpoint latest"):
        opened.state("latest")


def test_origin_that_no_longer_exists(tmp_path, exported):
    assert trained.open_origin(str(tmp_path / "gone")) is None
    assert trained.open_origin(str(exported)).charset.characters == tuple("0123456789")


MISTAKES = {
    "evaluate without data": (["evaluate", "{model}"], "model: no validation set on record; give --data FILE"),
    "evaluate a checkpoint": (
        ["evaluate", "{model}", "--data", "{data}", "--checkpoint", "latest"],
        "model: an exported model has no checkpoints; drop --checkpoint latest",
    ),
    "evaluate with another charset": (
        ["evaluate", "{model}", "--data", "{data}", "--charset", "{chars}"],
        "x.txt: does not match the charset of {model} (10 characters): has unexpected characters 'x'",
    ),
    "fine-tune a checkpoint": (
        ["train", "--init-from", "{model}", "--checkpoint", "3", "--data", "{data}", "--out", "{tmp}/out"],
        "model: an exported model has no checkpoints; drop --checkpoint 3",
    ),
    "fine-tune with another charset": (
        ["train", "--init-from", "{model}", "--charset", "{chars}", "--data", "{data}", "--out", "{tmp}/out"],
        "to switch to this charset, use --grow",
    ),
    "fine-tune another model": (
        ["train", "--init-from", "{model}", "--data", "{data}", "--out", "{tmp}/out", "--set", "model.hidden=9"],
        "model: weights are incompatible with this configuration: model.hidden is 9 instead of 8",
    ),
    "fine-tune at another height": (
        ["train", "--init-from", "{model}", "--data", "{data}", "--out", "{tmp}/out", "--set", "model.height=64"],
        "model: weights are incompatible with this configuration: model.height is 64 instead of 40",
    ),
    "resume": (["train", "--resume", "{model}"], "it looks like an exported model; expected the --out of"),
    "centers into the model": (
        ["centers", "estimate", "--run", "{model}", "--data", "{data}"],
        "model: an exported model; give --out FILE",
    ),
    "report into the model": (["report", "{model}", "--data", "{data}"], "model: an exported model; give --out FILE"),
    "report of a checkpoint": (
        ["report", "{model}", "--data", "{data}", "--out", "{tmp}/page.html", "--checkpoint", "8"],
        "model: an exported model has no checkpoints; drop --checkpoint 8",
    ),
    "original layout": (
        ["export", "{model}", "--format", "original", "--out", "{tmp}/out"],
        "model: has no original layout; expected a run made by 'jaxcrnn convert'",
    ),
    "convert": (
        ["convert", "{model}/model.safetensors", "--charset", "{chars}", "--out", "{tmp}/out"],
        "model.safetensors: is a model that jaxcrnn exported, which needs no conversion; fine-tune it with train",
    ),
    "parity with another model": (
        ["parity", "pretrained"],
        "jaxcrnn: model.backbone=vgg-fine, imported.channels=384: not supported by torch_ref; expected two BiLSTMs",
    ),
    "neither": (
        ["evaluate", "{tmp}", "--data", "{data}"],
        "config.yaml is missing; expected pretrained",
    ),
    "no such folder": (
        ["train", "--init-from", "{tmp}/no", "--data", "{data}"],
        "there is no such folder; expected pretrained, the --out of 'jaxcrnn train', or that of 'jaxcrnn export",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_print_one_line(name, exported, lines_file, tmp_path, capsys):
    (tmp_path / "x.txt").write_text("x\n")
    places = {"model": exported, "data": lines_file, "tmp": tmp_path, "chars": tmp_path / "x.txt"}
    arguments, message = MISTAKES[name]
    before = sorted(exported.iterdir())
    assert main([a.format(**places) for a in arguments]) == 2
    error = capsys.readouterr().err
    assert message.format(**places) in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert sorted(exported.iterdir()) == before


def test_fine_tuning_inherits_the_model(exported, capsys):
    assert main(["train", "--init-from", str(exported), "--set", "optim.steps=7", "--print-config"]) == 0
    shown = capsys.readouterr().out
    assert "  hidden: 8\n" in shown
    assert "  blank: last\n" in shown
    assert "  steps: 7\n" in shown


def test_comparison_may_start_from_an_exported_model(exported, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(f"init_from: {exported}\nconfig: {{optim: {{steps: 3}}}}\narms: {{ctc: {{}}}}\n", encoding="utf-8")
    made = plan.read(path, (), trained.open_untrusted)
    assert made.origin.place == str(exported)
    assert {config.model.hidden for config in (made.start, *made.arms.values())} == {8}
    path.write_text(path.read_text() + "start: {optim: {steps: 9}}\n", encoding="utf-8")
    with pytest.raises(UserError, match="start cannot be combined with init_from"):
        plan.read(path, (), trained.open_untrusted)


def test_card_of_an_exported_model_is_kept(exported):
    package = recognizer.load(exported)
    assert "GB 2312" in card(package, Path("pretrained"))
    (exported / "README.md").rename(exported / "CARD.md")
    try:
        assert "to be added by the author" in card(package, exported)
    finally:
        (exported / "CARD.md").rename(exported / "README.md")


@pytest.mark.slow
def test_commands_read_with_an_exported_model(exported, lines_file, tmp_path, capsys):
    data = ["--data", str(lines_file)]
    assert main(["evaluate", str(exported), *data, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lines"] == 24
    assert main(["report", str(exported), *data, "--out", str(tmp_path / "page.html")]) == 0
    assert "There are no training logs" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert main(["export", str(exported), "--format", "safetensors", "--out", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_exported_model_is_fine_tuned_like_the_run_it_was_exported_from(lines_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(train_args(lines_file, "run", steps=4, val=False)) == 0
    assert main(["export", "run", "--format", "safetensors", "--out", "model"]) == 0
    for name in ("run", "model"):
        assert main(train_args(lines_file, f"from-{name}", "--init-from", name, steps=3, val=False)) == 0
    first, second = (trained.open_trained(f"from-{name}").state("latest")[0].params for name in ("run", "model"))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert main(["export", "from-model", "--format", "safetensors", "--out", "again"]) == 0
    assert "| fine-tuned from | model |\n| exported with |" in Path("again/README.md").read_text(encoding="utf-8")
    assert trained.open_trained("from-model").facts()["init_from"] == {"run": str(tmp_path / "model"), "step": 0}
    again = [*train_args(lines_file, "from-model", "--init-from", "model", steps=3, val=False), "--auto-resume"]
    assert main(again) == 0
    assert "resuming the run in from-model" in capsys.readouterr().out
    assert main(["report", "from-model", "--data", str(lines_file)]) == 0
    page = (tmp_path / "from-model" / "report.html").read_text(encoding="utf-8")
    assert "fine-tuned from" in page
    assert "before: separation of look-alikes" in page or "No feature map" in page


@pytest.mark.slow
def test_package_weights_are_fine_tuned_with_another_charset(lines_file, tmp_path, monkeypatch, capsys):
    """With fewer characters and with one that they do not have; resumed, reported and exported."""
    monkeypatch.chdir(tmp_path)
    Path("chars.txt").write_text("".join(f"{c}\n" for c in "0123456789\u0e01"), encoding="utf-8")
    settings = ["data.batch_size=2", "data.buckets=1", "optim.steps=2", "optim.frozen=7", "run.quick_compile=true"]
    begin = ["train", "--init-from", "pretrained", "--grow", "--charset", "chars.txt", "--data", str(lines_file)]
    assert main([*begin, "--out", "run", "--set", *settings]) == 0
    assert "charset: 10 characters kept, 1 added, 6956 removed" in capsys.readouterr().out
    run, origin = trained.open_trained("run"), trained.open_trained("pretrained")
    assert run.facts()["init_from"] == {"run": "pretrained", "step": 0}
    assert run.config.model == replace(origin.config.model, num_classes=0)  # of the charset
    ours, theirs = (one.state("best")[0].params["backbone"] for one in (run, origin))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)  # frozen
    assert main([*begin, "--out", "run", "--set", *settings, "--auto-resume"]) == 0
    assert main(["report", "run", "--data", str(lines_file)]) == 0
    assert "pretrained" in Path("run/report.html").read_text(encoding="utf-8")
    assert main(["export", "run", "--format", "safetensors", "--out", "model"]) == 0
    assert "| fine-tuned from | the pretrained weights of jaxcrnn" in Path("model/README.md").read_text(
        encoding="utf-8"
    )
    assert len(jaxcrnn.load("model").recognize([lines_file.parent / "0.png"])) == 1


def test_exported_weights_are_interpolated_by_character(exported, tmp_path, capsys):
    start = recognizer.load(exported)
    rng = np.random.default_rng(1)
    charset = Charset("93x", "first")  # two shared characters, in another order, and a new one
    model = replace(start.model, num_classes=4, blank=charset.blank, dropout=0.3)
    shapes = state_shapes(TrainConfig(model))
    arrays = {"params": shapes.params, "batch_stats": shapes.batch_stats}
    variables = jax.tree.map(lambda a: rng.uniform(0, 0.2, a.shape).astype(np.float32), arrays)
    tuned = tmp_path / "tuned"
    to_safetensors(Recognizer(model, variables, charset, Limits()), tuned, tuned)
    out = tmp_path / "between"
    command = ["export", str(tuned), "--format", "safetensors", "--out", str(out), "--interpolate", str(exported)]
    assert main([*command, "--share", "0.25"]) == 0
    made = recognizer.load(out)
    assert made.charset.characters == charset.characters
    assert made.model.dropout == 0.3
    for path, value in jax.tree_util.tree_leaves_with_path(made.variables):
        old, new = (
            functools.reduce(lambda tree, key: tree[key.key], path, one.variables)
            for one in (start, recognizer.load(tuned))
        )
        if path[1].key == "head":
            digits = start.charset.encode("93")
            np.testing.assert_allclose(value[..., 3], new[..., 3], rtol=1e-6)  # x is new
            old, new, value = old[..., [start.charset.blank, *digits]], new[..., :3], value[..., :3]
        np.testing.assert_allclose(value, 0.75 * np.asarray(old) + 0.25 * np.asarray(new), rtol=1e-5, atol=1e-7)
    assert "(share 0.25)" in (out / "README.md").read_text()


def test_other_models_are_not_interpolated(exported, tmp_path, capsys):
    command = ["export", str(exported), "--format", "safetensors", "--out", str(tmp_path / "out")]
    for more, message in (
        (
            ["--interpolate", "pretrained"],
            "different models cannot be interpolated: backbone is 'tiny' instead of 'vgg-fine'",
        ),
        (
            ["--share", "0.5"],
            "--share requires --interpolate; expected the recogniser that this one was fine-tuned from",
        ),
        (["--interpolate", "pretrained", "--share", "2"], "--share is 2; expected a number from 0 to 1"),
    ):
        assert main([*command, *more]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_can_be_loaded_at_another_height_if_rows_are_averaged():
    """At 32 pixels, one row remains, whose mean is itself."""

    def loads(before, after, rows_before="flat", rows_after="flat", hidden=4):
        models = [
            ModelConfig("vgg", size, height=height, imported=Imported(rows=rows))
            for size, height, rows in ((4, before, rows_before), (hidden, after, rows_after))
        ]
        same_model(SimpleNamespace(folder="old", train_config=TrainConfig(models[0])), models[1])

    loads(32, 48, rows_after="mean")
    loads(48, 32, "mean", "mean")
    loads(48, 32, "mean", "flat")
    loads(32, 44)  # one row as well
    with pytest.raises(UserError, match=r"height is 48 instead of 32 \(to fine-tune at another height, add imported"):
        loads(32, 48)
    with pytest.raises(UserError, match="rows is 'mean' instead of 'flat'"):
        loads(48, 48, rows_after="mean")  # two rows, as twice as many features before
    with pytest.raises(UserError, match="hidden is 5 instead of 4"):
        loads(32, 48, rows_after="mean", hidden=5)


def test_a_recogniser_for_lines_of_twice_the_height_starts_as_the_one_it_was():
    """Of a line whose pixels are repeated 2x2 times, the finer model computes the same."""
    model = ModelConfig("vgg", 4, num_classes=5, imported=Imported(channels=16))
    fine = replace(model, backbone="vgg-fine", height=64)
    images = np.random.default_rng(0).uniform(-1, 1, (2, 32, 40, 1)).astype(np.float32)
    widths = np.asarray([40, 21])
    variables = CRNN(model).init(jax.random.key(0), images, widths)
    expected = CRNN(model).apply(variables, images, widths)

    whole = np.repeat(np.repeat(images, 2, 1), 2, 2)
    for conv in ("xla", "winograd"):
        doubled = CRNN(replace(fine, conv=conv)).apply(enlarged(variables, model, fine), whole, 2 * widths)
        assert doubled.lengths.tolist() == expected.lengths.tolist()
        np.testing.assert_allclose(doubled.logits, expected.logits, atol=1e-5)

    same_model(SimpleNamespace(folder="old", train_config=TrainConfig(model)), fine)
    with pytest.raises(UserError, match="backbone is 'vgg-fine' instead of 'vgg', model.height is 80"):
        same_model(SimpleNamespace(folder="old", train_config=TrainConfig(model)), replace(fine, height=80))
    assert enlarged(variables, model, model) is variables


def test_a_finer_recogniser_is_interpolated_with_the_one_it_was():
    charset = Charset("abcd")
    model = ModelConfig("vgg", 4, num_classes=5, imported=Imported(channels=16))
    fine = replace(model, backbone="vgg-fine", height=64)
    shapes, rng = state_shapes(TrainConfig(model)), np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        {"params": shapes.params, "batch_stats": shapes.batch_stats},
    )
    start = enlarged(variables, model, fine)
    trained = jax.tree.map(lambda leaf: leaf + 1, start)
    readers = Recognizer(model, variables, charset, Limits()), Recognizer(fine, trained, charset, Limits())
    mean = interpolated(*readers, 0.25)
    assert mean.model == fine
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 0.25, atol=1e-6), mean.variables, start)
    with pytest.raises(UserError, match="backbone is 'vgg' instead of 'vgg-fine'"):
        interpolated(*readers[::-1], 0.25)


@pytest.mark.slow
def test_fine_tuning_goes_on_at_twice_the_height(tmp_path, capsys):
    """From the command line, with another charset too."""
    charset = Charset("0123456789")
    model = ModelConfig("vgg", 8, num_classes=charset.num_classes, imported=Imported(channels=32))
    shapes, rng = state_shapes(TrainConfig(model)), np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: np.abs(rng.normal(0, 0.1, leaf.shape)).astype(np.float32),
        {"params": shapes.params, "batch_stats": shapes.batch_stats},
    )
    to_safetensors(Recognizer(model, variables, charset, Limits()), tmp_path, tmp_path / "coarse")
    (tmp_path / "more.txt").write_text("0\n1\na\n", encoding="utf-8")
    images = tmp_path / "images"
    images.mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (64, 160)).astype(np.uint8)).save(images / f"{i}.png")
    (tmp_path / "train.txt").write_text("".join(f"images/{i}.png\t{i % 2}\n" for i in range(4)), encoding="utf-8")
    command = ["train", "--init-from", str(tmp_path / "coarse"), "--data", str(tmp_path / "train.txt")]
    fine = ["--set", "model.backbone=vgg-fine", "model.height=64", "optim.steps=1", "data.batch_size=2"]
    grow = ["--grow", "--charset", str(tmp_path / "more.txt")]
    for name, more in (("same", []), ("grown", grow)):
        assert main([*command, *more, "--out", str(tmp_path / name), *fine]) == 0
        kernel = trained.open_trained(tmp_path / name).state("latest")[0].params["backbone"]["conv0"]["kernel"]
        expected = np.kron(variables["params"]["backbone"]["conv0"]["kernel"], np.full((2, 2, 1, 1), 0.25))
        np.testing.assert_allclose(kernel, expected, atol=0.01)
    capsys.readouterr()
    assert main([*command, "--out", str(tmp_path / "no"), "--set", "model.height=64"]) == 2
    assert "or at 64 model.backbone=vgg-fine" in capsys.readouterr().err
