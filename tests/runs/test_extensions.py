"""Functions that a run's loss names by import paths: used where they are trusted, and otherwise never imported."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from small_runs import SMALL, train_args

import jaxcrnn
from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.experiments.plan import read
from jaxcrnn.model import ModelConfig
from jaxcrnn.objective import CenterRule, LossConfig
from jaxcrnn.runs import config as configs
from jaxcrnn.runs import extensions, folder
from jaxcrnn.train import TrainConfig

MODULE = """
import jax.numpy as jnp
from jaxcrnn import assign, centers
from jaxcrnn.objective import CenterRule

def sharp(logits, lengths, labels, label_lengths, *, blank):
    soft = assign.posterior(logits, lengths, labels, label_lengths, blank=blank)
    return soft._replace(weights=soft.weights**2)

def sevens(key, kernel):
    return centers.zeros(*kernel.shape[::-1])._replace(centers=jnp.full(kernel.shape[::-1], 7.0))

rule = CenterRule(sevens)

def energy(outputs, batch, assignment, state, *, blank):
    return jnp.square(outputs.features).mean((1, 2))

number = 3
"""
OWN = ["loss.assignment=own_loss:sharp", "loss.rule=own_loss:rule", "loss.terms=[0.5*own_loss:energy]"]
PATHS = {"own_loss:sharp", "own_loss:rule", "own_loss:energy"}


@pytest.fixture(autouse=True)
def _no_module_stays(monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield
    for name in [name for name in sys.modules if name.startswith(("own_", "broken_"))]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def trained(lines_file, tmp_path_factory):
    """A run with three parts of its own, and the folder of the module that has them."""
    place = tmp_path_factory.mktemp("own")
    (place / "own_loss.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        patched.setattr(sys, "path", [p for p in sys.path if p])
        assert main([*train_args(lines_file, place / "run", steps=2), *OWN]) == 0
        assert sys.path[-1] == str(place)  # after all that is installed
    del sys.modules["own_loss"]
    return place / "run"


def test_custom_parts_are_used_and_saved_as_import_paths(trained, monkeypatch):
    rows = [json.loads(row) for row in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["energy"] > 0
    saved = yaml.safe_load((trained / "config.yaml").read_text())["loss"]
    assert saved["assignment"] == "own_loss:sharp"
    assert saved["rule"] == "own_loss:rule"
    assert saved["terms"] == ["0.5*own_loss:energy"]
    monkeypatch.chdir(trained.parent)
    run = folder.open_run(trained, trust=True)
    state, _ = run.state("latest")
    np.testing.assert_array_equal(state.centers.centers, np.full_like(state.centers.centers, 7))  # preset ctc: fixed
    module = sys.modules["own_loss"]
    assert run.train_config.flow.assign is module.sharp
    assert run.train_config.flow.terms[-1] == ("energy", 0.5, module.energy)
    assert folder.open_run(trained, trust=True).train_config == run.train_config


@pytest.mark.parametrize(
    "command", ["evaluate", "recognize", "centers", "parity", "report", "export", "lookalikes", "train"]
)
def test_no_command_imports_untrusted_code(trained, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained.parent)
    run = str(trained)
    arguments = {
        "evaluate": [run],
        "recognize": [run, "x.png"],
        "centers": ["estimate", "--run", run],
        "parity": [run],
        "report": [run, "--out", str(tmp_path / "r.html")],
        "export": [run, "--format", "torch", "--out", str(tmp_path / "x")],
        "lookalikes": ["mine", "--run", run, "--out", str(tmp_path / "g.txt")],
        "train": ["--resume", run],
    }
    assert main([command, *arguments[command]]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "config.yaml: loss.assignment=own_loss:sharp" in line
    assert "would run the code of own_loss" in line
    assert "--trust-code" in line
    assert "own_loss" not in sys.modules


def test_fresh_process_requires_trust_code(trained, lines_file):
    def fresh(*more):
        # -P, because the console script does not search the working directory either
        words = [sys.executable, "-P", "-m", "jaxcrnn", "recognize", str(trained), *more]
        return subprocess.run(words, capture_output=True, text=True, cwd=trained.parent, env=environment)

    environment = os.environ | {"PYTHONPATH": str(Path(jaxcrnn.__file__).parents[1])}
    image = next(lines_file.parent.glob("*.png"))
    refused, opened = fresh(str(image)), fresh(str(image), "--trust-code")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert "own_loss" in refused.stderr
    assert (opened.returncode, opened.stderr) == (0, "")


@pytest.mark.slow
def test_resume_requires_the_same_paths_or_trust(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained.parent)
    run = shutil.copytree(trained, tmp_path / "run")
    assert main(["train", "--resume", str(run), "--set", *OWN[:2]]) == 2  # not all of them
    assert "loss.terms=own_loss:energy would run" in capsys.readouterr().err
    assert main(["train", "--resume", str(run), "--set", *OWN[:2], "loss.terms=[own_loss:energy]"]) == 2
    assert "loss.terms=[own_loss:energy] differs from" in capsys.readouterr().err
    text = (run / "config.yaml").read_text().replace("  steps: 2\n", "  steps: 4\n")
    (run / "config.yaml").write_text(text)
    assert main(["train", "--resume", str(run), "--set", *OWN]) == 0
    assert main(["train", "--resume", str(run), "--trust-code"]) == 0
    assert "finished at step 4" in capsys.readouterr().out


def test_auto_resume_trusts_its_own_import_paths(trained, lines_file, monkeypatch, capsys):
    monkeypatch.chdir(trained.parent)
    assert main([*train_args(lines_file, trained, steps=2), *OWN, "--auto-resume"]) == 0
    assert "resuming the run in" in capsys.readouterr().out


def test_weights_of_a_run_without_its_module(trained, lines_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    begins = ["--init-from", str(trained), "--preset", "ctc"]
    assert main([*train_args(lines_file, tmp_path / "next", *begins, steps=1, val=False)]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(trained), "--trust-code"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"loss.assignment=own_loss:sharp: module own_loss not found; expected it in {tmp_path}" in line


def test_trust_argument_in_python(trained, monkeypatch):
    monkeypatch.chdir(trained.parent)
    with pytest.raises(UserError, match="would run the code of own_loss"):
        jaxcrnn.load(trained)
    with pytest.raises(UserError, match="loss.rule=own_loss:rule, loss.terms=own_loss:energy would"):
        folder.open_run(trained, trust={"own_loss:sharp"})
    assert "own_loss" not in sys.modules

    def mine(*args, **options):
        raise AssertionError

    objects = {"own_loss:sharp": mine, "own_loss:energy": mine, "own_loss:rule": CenterRule(update=mine)}
    flow = folder.open_run(trained, trust=objects).flow
    assert flow.assign is flow.rule.update is flow.terms[-1].function is mine
    assert "own_loss" not in sys.modules
    assert folder.open_run(trained, trust=PATHS).flow.assign is sys.modules["own_loss"].sharp
    assert jaxcrnn.load(trained, trust_code=True).charset.characters


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"assignment": "own_gone:f"}, "loss.assignment=own_gone:f: module own_gone not found"),
        ({"assignment": "own_loss:sharq"}, r"own_loss \(.*own_loss.py\) has no 'sharq'; did you mean sharp"),
        ({"assignment": "own_loss:number"}, "own_loss:number is of type int; expected a function"),
        ({"assignment": "own_loss:rule"}, "is of type CenterRule; expected a function"),
        ({"assignment": "own_loss:sharp", "rule": "own_loss:sharp"}, "loss.rule=own_loss:sharp is of type function"),
        ({"terms": ("x*own_loss:energy",)}, "loss.terms: 'x.own_loss:energy' has the weight 'x'; expected a number"),
        ({"terms": ("-1*own_loss:energy",)}, "has the weight '-1'; expected a number of 0 or more"),
        ({"terms": ("energy",)}, "loss.terms: 'energy' is not an import path; expected module:function or 0.1"),
        ({"assignment": "own_loss:"}, "loss.assignment: 'own_loss:' is not an import path; expected module:function"),
        ({"assignment": "broken_one:f"}, r"importing broken_one failed: ZeroDivisionError.*broken_one.py, line 2\)"),
        ({"assignment": "broken_two:f"}, "importing broken_two failed: No module named 'own_missing'"),
        ({"terms": ("own_loss:energy", "2*own_loss:energy")}, "duplicate name 'energy'"),
    ],
)
def test_invalid_import_paths_print_one_line(loss, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_loss.py").write_text(MODULE)
    (tmp_path / "broken_one.py").write_text("\n1 / 0\n")
    (tmp_path / "broken_two.py").write_text("import own_missing\n")
    with pytest.raises(UserError, match=message) as caught:
        extensions.resolve(LossConfig(**loss))
    assert "\n" not in str(caught.value)


def test_redefined_function_is_resolved_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_loss.py").write_text(MODULE)
    loss = LossConfig(assignment="own_loss:sharp")
    first = extensions.resolve(loss)
    assert extensions.resolve(loss) == first
    sys.modules["own_loss"].sharp = lambda *args, blank: None
    assert extensions.resolve(loss) != first


def test_import_paths_of_file_and_options(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("loss: {assignment: a.b:f, terms: [0.5*a:g, h:i], preset: ctc}\nrun: {seed: 3}\n")
    config = configs.load(path, ["loss.rule=k:l"])
    assert extensions.paths(config.loss) == {"a.b:f": "assignment", "k:l": "rule", "a:g": "terms", "h:i": "terms"}
    named = extensions.named(["loss.rule=k:l", "data.train=x:y"], configs.read_yaml(path))
    assert named == set(extensions.paths(config.loss))
    (tmp_path / "again.yaml").write_text(configs.to_yaml(config))
    assert configs.load(tmp_path / "again.yaml") == config


def test_run_without_rule_and_terms_keys_is_unchanged(trained, tmp_path, lines_file, capsys):
    assert main(train_args(lines_file, tmp_path / "old", steps=1, val=False)) == 0
    text = (tmp_path / "old" / "config.yaml").read_text()
    assert text.count("  rule: null\n  terms: []\n") == 1
    (tmp_path / "old" / "config.yaml").write_text(text.replace("  rule: null\n  terms: []\n", ""))
    facts = json.loads((tmp_path / "old" / "run.json").read_text())
    for key in ("rule", "terms"):
        del facts["config"]["loss"][key]
    (tmp_path / "old" / "run.json").write_text(json.dumps(facts))
    assert folder.say_changes(folder.open_run(tmp_path / "old"))[1] == []


def test_comparison_arm_with_a_custom_loss(tmp_path):
    (tmp_path / "plan.yaml").write_text(
        f"config: {{text: {{share: 1}}}}\narms: {{ctc: {{}}, mine: {{loss: {{assignment: '{OWN[0][16:]}'}}}}}}\n"
    )
    plan = read(tmp_path / "plan.yaml", SMALL)
    assert plan.arms["mine"].loss.import_paths == {"assignment": ("own_loss:sharp",)}


BROKEN = """
import jax.numpy as jnp
from jaxcrnn.objective import CenterRule
def noblank(outputs, batch, assignment, state): return 0.0
def square(outputs, batch, assignment, state, *, blank): return outputs.features.sum(-1)
def divides(outputs, batch, assignment, state, *, blank): return 1 / 0
def nothing(logits, lengths, labels, label_lengths, *, blank): return None
lost = CenterRule(None, lambda state, features, assignment: None)
narrow = CenterRule(None, lambda state, features, assignment: state._replace(centers=state.centers[:, :1]))
def number(outputs, batch, assignment, state, *, blank): return 0.5
"""


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("loss.terms=[broken_loss:noblank]", "loss.terms=broken_loss:noblank: TypeError: noblank() got an unexpected"),
        ("loss.terms=[broken_loss:square]", "ValueError: term 'square' has shape (3, 4)"),
        ("loss.terms=[broken_loss:divides]", "ZeroDivisionError: division by zero"),
        ("loss.assignment=broken_loss:nothing", "loss.assignment=broken_loss:nothing: "),
        ("loss.rule=broken_loss:lost", "the update returned NoneType of shapes []"),
        ("loss.rule=broken_loss:narrow", "expected CenterState of shapes [(11, 16), (11,)]"),
    ],
)
def test_error_in_a_custom_function_prints_one_line(setting, message, lines_file, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken_loss.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "run"
    assert main([*train_args(lines_file, out, "loss.preset=posterior", setting, val=False)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert "divides" not in setting or f"{tmp_path / 'broken_loss.py'}, line 6" in error
    assert not out.exists()


def test_term_may_return_a_python_number(tmp_path, monkeypatch):
    (tmp_path / "broken_loss.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("broken_loss", None)
    loss = LossConfig("posterior", terms=("2*broken_loss:number",))
    model = ModelConfig("tiny", 4, num_classes=5)
    extensions.try_out(TrainConfig(model, loss, flow=extensions.resolve(loss)))
