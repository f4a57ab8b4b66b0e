"""Run folders, exports and a comparison made by version 0.1 are read as before, with the same numbers."""

import importlib.util
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxcrnn
from jaxcrnn.cli.main import main
from jaxcrnn.interop import exporters
from jaxcrnn.objective import PRESETS
from jaxcrnn.runs import folder as run_folders

OLD = Path(__file__).resolve().parents[1] / "fixtures" / "v0.1"
RUNS = ("run_ctc", "run_posterior", "run_imported")
# One by its command in any case, the imported one by its logits; the rest is slow.
EVALUATED = [pytest.param(name, marks=() if name == "run_posterior" else pytest.mark.slow) for name in RUNS]
IMAGES = [f"data/{i}.png" for i in range(8)]
ROUNDED = 1.01e-4  # of values with four decimals: the last may differ by one


@pytest.fixture
def old(tmp_path, monkeypatch):
    """A copy of all files, as the working folder: the paths in them are relative."""
    monkeypatch.chdir(shutil.copytree(OLD, tmp_path / "old"))
    return tmp_path / "old"


def equal(value, expected, path="", tolerance=ROUNDED):
    """Compares JSON: numbers within the tolerance, everything else exactly."""
    if isinstance(expected, dict):
        assert value.keys() == expected.keys(), path
        for key, one in expected.items():
            equal(value[key], one, f"{path}/{key}", tolerance)
    elif isinstance(expected, list):
        assert len(value) == len(expected), path
        for i, one in enumerate(expected):
            equal(value[i], one, f"{path}/{i}", tolerance)
    elif isinstance(expected, float):
        assert value == pytest.approx(expected, rel=1e-5, abs=tolerance), path
    else:
        assert value == expected, path


@pytest.mark.parametrize("name", EVALUATED)
def test_old_runs_give_the_same_texts(name, old, capsys):
    expected = json.loads((old / name / "expected.json").read_text())
    assert main(["evaluate", name, "--data", "data/labels.txt", "--json"]) == 0
    equal(json.loads(capsys.readouterr().out), expected["evaluate"])
    assert main(["recognize", name, *IMAGES, "--json", "--characters"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, recorded in zip(lines, expected["recognize"], strict=True):
        for character, before in zip(line["characters"], recorded["characters"], strict=True):
            # Since 0.3 exact; it was the highest probability of the frames, which that of the line still is.
            assert 0 < character.pop("confidence") <= 1 - sum(character.pop("rivals").values()) + 1e-3
            del before["confidence"]
            for edge in ("left", "right") if name == "run_imported" else ():  # since 0.3 they do not depend on padding
                assert character.pop(edge) == pytest.approx(before.pop(edge), abs=2)
    equal(lines, expected["recognize"])


def logits_of(call, name, recorded):
    """The largest difference between logits now and those recorded."""
    height = 48 if name == "run_imported" else 32
    differences = []
    for image in IMAGES:
        gray = recorded[f"rows{height}/{image}"]
        pixels = (gray.astype(np.float32) / 127.5 - 1)[None, :, :, None]
        logits, lengths = call(pixels, np.asarray([gray.shape[1]], np.int32))
        expected = recorded[f"{name}/{image}"]
        assert int(lengths[0]) == len(expected) > 0
        differences.append(np.abs(np.asarray(logits)[0, : len(expected)] - expected).max())
    return max(differences)


LOGITS = [*RUNS, "export_safetensors"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "run_imported" else pytest.mark.slow) for name in LOGITS]
)
def test_old_runs_give_the_same_logits(name):
    reader = jaxcrnn.load(OLD / name)
    with np.load(OLD / "expected_logits.npz") as recorded:
        assert logits_of(jax.jit(exporters.function(reader)), name, recorded) < 1e-4


def test_old_safetensors_export_gives_the_same_texts():
    lines = jaxcrnn.load(OLD / "export_safetensors").recognize([OLD / image for image in IMAGES])
    expected = json.loads((OLD / "expected_export.json").read_text())
    for line, one in zip(lines, expected.values(), strict=True):
        assert line.text == one["text"]
        assert line.confidence == pytest.approx(one["confidence"], abs=1e-4)


@pytest.mark.slow
def test_old_stablehlo_export_runs():
    pytest.importorskip("flatbuffers", reason="the extra 'export' is not installed")
    from jax import export

    program = export.deserialize(bytearray((OLD / "export_stablehlo" / "model.bin").read_bytes()))
    with np.load(OLD / "expected_logits.npz") as recorded:
        assert logits_of(program.call, "export_stablehlo", recorded) < 1e-4


def test_exports_match_those_of_version_0_1(tmp_path):
    """Files that version 0.1 could read: the same keys, the same arrays."""
    reader = jaxcrnn.load(OLD / "run_ctc")
    exporters.to_safetensors(reader, OLD / "run_ctc", tmp_path / "out")
    now, before = (json.loads((f / "config.json").read_text()) for f in (tmp_path / "out", OLD / "export_safetensors"))
    now["version"] = before["version"]
    assert {key: now["model"][key] for key in before["model"]} == before["model"]
    assert now | {"model": None} == before | {"model": None}
    weights = "model.safetensors"
    assert (tmp_path / "out" / weights).read_bytes() == (OLD / "export_safetensors" / weights).read_bytes()


@pytest.mark.slow
def test_torch_export_round_trip(tmp_path, capsys):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    arguments = [str(OLD / "export_torch.pth"), "--charset", str(OLD / "data" / "charset.txt")]
    assert main(["convert", *arguments, "--out", str(tmp_path / "run")]) == 0
    reader = jaxcrnn.load(tmp_path / "run")
    with np.load(OLD / "expected_logits.npz") as recorded:
        assert logits_of(jax.jit(exporters.function(reader)), "run_ctc", recorded) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["run_ctc", "run_posterior"])
def test_old_runs_resume(name, old, capsys):
    config = old / name / "config.yaml"
    text = config.read_text()
    assert run_folders.say_changes(run_folders.open_run(old / name))[1] == []
    config.write_text(text.replace("steps: 1200", "steps: 1204").replace("log_every: 300", "log_every: 1"))
    assert main(["train", "--resume", name]) == 0
    out = capsys.readouterr().out
    assert "resumed at step 1200" in out
    changed = [line.partition("config.yaml was edited: ")[2] for line in out.splitlines() if "was edited" in line]
    assert changed == ["optim.steps is 1204, was 1200", "run.log_every is 1, was 300"]
    rows = [json.loads(line) for line in (old / name / "metrics.jsonl").read_text().splitlines()]
    expected = json.loads((old / "expected_resumed.json").read_text())[name]
    rows = [row for row in rows if row["step"] > 1200]
    assert [row["step"] for row in rows] == [row["step"] for row in expected]
    for row, one in zip(rows, expected, strict=True):
        assert one.keys() <= row.keys()
        for key in ("loss", "ctc", "center", "val_loss"):
            if key in one:
                assert row[key] == pytest.approx(one[key], rel=1e-5, abs=1e-6)
        if "grad_norm" in one:  # small near a minimum, so rounding counts
            assert row["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)


def test_imported_weights_export_bitwise(old):
    from safetensors.numpy import load_file

    from jaxcrnn.interop import importer

    reader = jaxcrnn.load(old / "run_imported")
    back = importer.original(run_folders.open_run(old / "run_imported"), reader.variables)
    before = load_file(old / "imported.safetensors")
    assert back.keys() == before.keys()
    for key, array in before.items():
        np.testing.assert_array_equal(back[key], array, err_msg=key)


@pytest.mark.slow
def test_old_comparison_opens(old, capsys):
    before = json.loads((old / "comparison" / "results.json").read_text())
    assert main(["report", "comparison", "--out", "report.html"]) == 0
    assert "posterior" in (old / "report.html").read_text(encoding="utf-8")
    # 'compare' has whole paths in the configuration of a run.
    for config in (old / "comparison").glob("*/seed-*/config.yaml"):
        config.write_text(config.read_text().replace("data/", f"{old}/data/"))
    capsys.readouterr()
    assert main(["compare", "comparison.yaml", "--out", "comparison"]) == 0
    again = json.loads((old / "comparison" / "results.json").read_text())
    assert again.pop("against") == {}  # new in 0.3
    equal(again, before, tolerance=1e-9)
    assert not list((old / "comparison").glob("*/seed-1/checkpoints"))  # nothing was trained again


@pytest.fixture(scope="module")
def steps():
    """The module that recorded ten steps of every preset."""
    spec = importlib.util.spec_from_file_location("make_steps", OLD / "make_steps.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


with np.load(OLD / "steps.npz") as _recorded:
    STEPS = {name: _recorded[name] for name in _recorded.files}
RECORDED = list(dict.fromkeys(key.rpartition(".")[0] for key in STEPS))
QUICK = ("flow1, dense",)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RECORDED],
)
def test_ten_steps_match_version_0_1(name, steps):
    preset, head = name.split(", ")
    recorded = {part: STEPS[f"{name}.{part}"] for part in ("rows", "sums", "names")}
    rows, sums = steps.different(steps.ten_steps(preset, head), recorded)
    assert rows.max() < 1e-5
    assert sums < 1e-5


def test_every_preset_was_recorded():
    assert {key.partition(",")[0] for key in STEPS} <= set(PRESETS)
