"""``jaxcrnn bench``: what it counts, what it says, what it refuses; not how fast anything is."""

import json

import jax
import jax.numpy as jnp
import pytest
from jax import monitoring

from jaxcrnn.bench import cases, run
from jaxcrnn.cli.main import main
from jaxcrnn.runs.compile import uncached

TINY = ["--batch", "2", "--width", "64", "--classes", "20", "--slots", "3", "--hidden", "4", "--backbone", "tiny"]


def test_flops_of_a_training_step():
    """About 420 GFLOP for 32 lines of 280 px and 6,941 classes: counted by hand before anything was built."""
    assert cases.flops(cases.Sizes()) == pytest.approx(420e9, rel=0.03)
    one, two = (cases.flops(cases.Sizes(batch=b)) for b in (1, 2))
    assert two == 2 * one
    frames, classes = cases.Sizes().frames, 1000
    more = cases.flops(cases.Sizes(classes=2 * classes)) - cases.flops(cases.Sizes(classes=classes))
    assert more == 3 * 2 * 32 * frames * 512 * classes  # the head, there and back twice
    assert cases.flops(cases.Sizes(), backward=False) < cases.flops(cases.Sizes()) / 2.9


@pytest.mark.torch
@pytest.mark.slow
def test_benchmark_interleaves_with_the_reference(tmp_path, capsys):
    pytest.importorskip("torch")
    out = tmp_path / "bench.json"
    assert main(["bench", *TINY, "--rounds", "2", "--only", "product,ctc,bilstm", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert {"date", "device", "jax", "torch"} <= set(written["about"])
    assert (written["about"]["lstm"], written["about"]["ctc"]) == ("scan", "scan")  # what auto means here
    rows = {(row["case"], row["variant"]): row for row in written["rows"]}
    assert set(rows) == {
        ("product", "jaxcrnn"),
        ("product", "torch"),
        ("ctc", "jaxcrnn"),
        ("ctc", "optax"),
        ("ctc", "softmax"),
        ("ctc", "torch"),
        ("bilstm", "jaxcrnn"),
        ("bilstm", "torch"),
    }
    for (case, variant), row in rows.items():
        assert row["rounds"] == 2
        assert 0 < row["least_ms"] <= row["median_ms"]
        assert row["ratio"] == row["median_ms"] / rows[case, "jaxcrnn"]["median_ms"]
        assert (row["temporary_mb"] is None) == (variant == "torch")
        assert row["sizes"]["dtype"] == "float32"
    assert all(size > 50 for size in written["about"]["peak_mb"].values())
    assert rows["product", "jaxcrnn"]["gflops"] > 0
    assert capsys.readouterr().out.count("torch  ") == 3


def test_benchmark_runs_without_the_reference(monkeypatch, capsys):
    monkeypatch.setattr(run.sys, "executable", "/bin/false")
    assert main(["bench", *TINY, "--rounds", "1", "--only", "product"]) == 0
    shown = capsys.readouterr().out
    assert "not measured: torch: the PyTorch process exited without output" in shown
    assert "GFLOP/s" in shown


def test_compilation_cache_is_bypassed():
    events = []
    monitoring.register_event_listener(lambda name, **_: events.append(name))

    def compiled():  # anew each time
        events.clear()
        jax.jit(lambda x: 7 * x + 3).lower(jnp.ones(11)).compile()
        return any(name.endswith("compile_requests_use_cache") for name in events)

    assert compiled()
    with uncached():
        assert not compiled()
    assert compiled()


def test_grow_plan_scales_classes_batch_and_width():
    sizes = cases.Sizes()
    plan = run._plan(["step", "ctc", "bilstm"], sizes, grow=True)
    assert [s.classes for name, s in plan if name == "ctc"] == [6941, 100, 21504, 90112]
    sizes_of_steps = [(s.batch, s.width) for name, s in plan if name == "step"]
    assert sizes_of_steps == [(32, 280), (8, 280), (16, 280), (32, 140), (32, 560)]
    assert [s for name, s in plan if name == "bilstm"] == [sizes]
    small = run._plan(["step"], cases.Sizes(batch=2, width=88), grow=True)
    assert [(s.batch, s.width) for _, s in small] == [(2, 88), (1, 88), (2, 176)]  # not 0 lines, not too few frames
    plan = run._plan(["ctc", "step"], cases.Sizes(dtype="bfloat16"), False)
    assert [s.dtype for _, s in plan] == ["float32", "bfloat16"]


def test_out_of_memory_is_recorded_as_an_error(monkeypatch, tmp_path, capsys):
    def too_much(sizes):
        raise MemoryError("no room")

    monkeypatch.setitem(run.NAMES, "step", too_much)
    out = tmp_path / "bench.json"
    only = ["--only", "product, step,product", "--no-torch", "--rounds", "1", "--out", str(out)]
    assert main(["bench", *TINY, *only]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [(row["case"], row.get("error")) for row in rows] == [("product", None), ("step", "no room")]
    assert "not measured: jaxcrnn: no room" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--classes", "1"], "--classes 1: expected 2 or more"),
        (["--batch", "0"], "--batch 0: expected 1 to 1,000,000"),
        (["--width", "3000000000"], "--width 3000000000: expected 1 to"),
        (["--only", ","], "--only ''"),
        (["--dtype", "float64"], "--dtype float64: expected one of float32, bfloat16"),
        (["--compile", "--no-torch"], "cannot be combined"),
        (["--out", "nowhere/x.json"], "nowhere/x.json"),
        (["--data", "nowhere.txt", "--only", "data"], "nowhere.txt"),
        (["--lstm", "gru"], "expected one of auto, scan, unrolled, cudnn"),
        (["--width", "20"], "--width 20 gives 6 frames; expected at least 20"),
        (["--rounds", "0"], "--rounds 0"),
        (["--only", "step,steps"], "--only 'steps': unknown case; expected some of product, step"),
        (["--backbone", "vgg16"], "or layers such as"),
        (["--dtype", "half"], "expected one of float32"),
        (["--layers", "--only", "ctc,head"], "--layers needs one of the cases backbone, flows, step"),
        (["--matrix", "0"], "--matrix 0: expected 1 to"),
        (["--ctc", "loop"], "model.ctc is 'loop'; expected one of auto, scan, unrolled, pallas"),
    ],
)
def test_invalid_options_are_rejected(options, message, capsys):
    assert main(["bench", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("works", [True, False])
def test_time_and_traffic_are_added_up_by_layer(works, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise ValueError("a trace of another format")

    if not works:
        monkeypatch.setattr(run.layer_times, "by_layer", fail)
    out = tmp_path / "bench.json"
    options = ["--rounds", "1", "--only", "backbone", "--no-torch", "--layers", "--out", str(out)]
    assert main(["bench", *TINY, *options]) == 0
    row, shown = json.loads(out.read_text())["rows"][0], capsys.readouterr().out
    assert row["median_ms"] > 0
    if works:
        layers = row["layers"]
        assert layers["convolutions"]["forward_ms"] > 0
        assert layers["convolutions"]["backward_mb"] > 0
        assert "jaxcrnn, by layer" in shown
    else:
        assert "layers" not in row
        assert "no layers: jaxcrnn: a trace of another format" in shown


@pytest.mark.torch
@pytest.mark.slow
def test_every_case_runs(tmp_path, lines_file):
    pytest.importorskip("torch")
    out = tmp_path / "bench.json"
    assert main(["bench", *TINY, "--rounds", "1", "--data", str(lines_file), "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert {row["case"] for row in rows} == set(run.NAMES) - run.LONG
    assert not [row for row in rows if "error" in row]
