"""A whole comparison in small: same data for all arms, gone on with after a stop, reported; plans that are none."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxcrnn.cli.main import main
from jaxcrnn.errors import UserError
from jaxcrnn.experiments import plan as grid
from jaxcrnn.experiments import results, run
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.runs.config import Config
from jaxcrnn.types import CenterState

PLAN = """
config:
  data: {batch_size: 4}
  model: {backbone: tiny, hidden: 8}
  text: {share: 1.0, widths: 1, longest: 2, pitch: 0.5, typefaces: [gbsn00lp, wqy-microhei]}
  render: {level: easy, margin: 0}
  optim: {steps: 2, warmup: 0}
  augment: {probability: 0}
  run: {keep: 1, log_every: 1}
start: {optim: {steps: 2}}  # as the arms: one program less to compile
arms:
  ctc: {}
  flow1: {loss: {preset: flow1}}
seeds: [0, 1]
tests: {lines: 6, typefaces: [gkai00mp]}
estimate_lines: 4
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.yaml"
    path.write_text(PLAN, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def comparison(plan, tmp_path_factory):
    out = tmp_path_factory.mktemp("comparison") / "whole"
    assert main(["compare", str(plan), "--out", str(out)]) == 0
    return out


def predictions(out):
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.glob("*/seed-*/*.txt"))}


@pytest.mark.slow
def test_all_arms_share_initialization_and_data(comparison):
    rows = {
        (arm, seed): [
            json.loads(row)
            for row in (comparison / arm / f"seed-{seed}" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for arm in ("ctc", "flow1")
        for seed in (0, 1)
    }
    first = {key: log[0]["ctc"] for key, log in rows.items()}
    for seed in (0, 1):  # to the last digit but one: the two are programs of their own
        assert first["ctc", seed] == pytest.approx(first["flow1", seed], rel=1e-6)
    assert first["ctc", 0] != pytest.approx(first["ctc", 1], rel=1e-2)
    assert all(len(log) == 2 for log in rows.values())
    for test, letters in (("full", None), ("lookalike", "未末土士")):
        labels = (comparison / "tests" / test / "labels.txt").read_text(encoding="utf-8").splitlines()
        assert len(labels) == 6
        if letters:  # every character is in a group
            groups = "".join(read_groups(comparison / "groups.txt"))
            assert all(c in groups for line in labels for c in line.split("\t")[1])


@pytest.mark.slow
def test_interrupted_comparison_is_resumed(comparison, plan, tmp_path, monkeypatch, capsys):
    out, read = tmp_path / "broken", run.evaluate
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) == 6:  # start and ctc have read both sets, flow1 one of them
            raise KeyboardInterrupt
        return read(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(run, "evaluate", interrupted)
        assert main(["compare", str(plan), "--out", str(out)]) == 130
    assert len(predictions(out)) == 5 + 3  # and three charsets
    assert main(["compare", str(plan), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "[1/4] ctc, seed 0: already finished" in shown
    assert "not distinguishable" in shown
    assert predictions(out) == predictions(comparison)
    keys = {"baseline", "arms", "seeds", "speeds", "missing", "damaged", "against"}
    assert json.loads((out / "results.json").read_text()).keys() == keys


@pytest.mark.slow
def test_flow2_centers_are_estimated_from_the_start_run(comparison, tmp_path, monkeypatch, capsys):
    out = tmp_path / "flow2"
    shutil.copytree(comparison, out)
    path = tmp_path / "flow2.yaml"
    # The baseline comes last: what is finished before it has nothing to be compared with yet.
    arms = "  flow2: {loss: {preset: flow2}}\n  ctc: {}\nbaseline: ctc\n"
    first = PLAN[: PLAN.index("  ctc: {}")] + arms + PLAN[PLAN.index("seeds:") :]
    path.write_text(first.replace("seeds: [0, 1]", "seeds: [0]"), encoding="utf-8")
    (out / "ctc" / "seed-0" / "full.txt").unlink()
    assert main(["compare", str(path), "--out", str(out)]) == 2
    assert "none of 4 lines is recognised exactly" in capsys.readouterr().err
    estimated = CenterState(np.full((366, 16), 0.5, np.float32), np.ones(366, np.float32))
    calls = []
    monkeypatch.setattr(run, "estimate_centers", lambda *a, **k: calls.append(1) or (estimated, 3))
    assert main(["compare", str(path), "--out", str(out)]) == 0
    assert "centers estimated from 3 of 4 lines; 0 classes never seen" in capsys.readouterr().out
    assert (out / "start" / "seed-0" / "centers.safetensors").exists()
    assert calls == [1]
    log = (out / "flow2" / "seed-0" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(log[0])["center"] > 0


BAD = {
    "arms: {}": "arms is {}; expected names",
    "arms: {ctc: {}, a/b: {}}": "arms: invalid name 'a/b'",
    "arms: {ctc: {}, x: {optim: {steps: 3}}}": "arms.x takes 3 steps, but ctc takes 2",
    "arms: {ctc: {}, x: {data: {batch_size: 8}}}": "arms.x and ctc differ in 'data'",
    "arms: {ctc: {}, x: {loss: {preset: flow9}}}": "loss.preset is 'flow9'",
    "arms: {ctc: {}, x: {los: {}}}": "arms.x: unknown section 'los'",
    "arms: {ctc: {}}\nbaseline: x": "baseline is 'x'; expected one of the arms: ctc",
    "arms: {ctc: {}}\nseeds: 3": "seeds is 3; expected whole numbers below 2147483648 in brackets",
    "arms: {ctc: {}}\nseeds: [1, 1]": "expected each once",
    "arms: {ctc: {}}\nstart: {loss: {preset: flow1}}": "the loss has centers; expected plain CTC",
    "arms: {ctc: {}}\ntests: {line: 3}": "expected some of lines, seed",
    "arms: {ctc: {}}\ntests: {lines: 0}": "at least 1 line",
    "arms: {ctc: {}}\nrms: 1": "unknown key 'rms'",
    "arms: {ctc: {}, tests: {}}": "arms: invalid name 'tests'",
    "arms: {ctc: {}, ctc: {}}": "line 2: invalid YAML: duplicate key 'ctc'",
    "arms: {ctc: {}}\ngroups: [1]": "groups is [1]; expected a file",
    "arms: {ctc: {}}\nseeds: [99999999999999999999]": "expected whole numbers below",
    "arms: {ctc: {}}\ntests: {seed: 99999999999999999999}": "a seed from 0 to",
    "arms: {ctc: {}}\ntests: {lines: 3, files: {a: b}}": "tests.lines cannot be combined with tests.files",
    "arms: {ctc: {}}\ntests: {files: {charset: b}}": "tests.files: invalid name 'charset'",
    "arms: {ctc: {}}\nconfig: {text: {share: 1.0}}\ntests: {typefaces: [none]}": "none",
    "arms: {ctc: {}}\nconfig: {text: {share: 1.0}}\ngroups: nowhere.txt": "nowhere.txt: No such file",
    "arms: {ctc: {}, x: {}}\nagainst: {x: y}": "against: x: y; expected names of arms other than ctc",
    "arms: {ctc: {}, x: {}}\nagainst: {x: ctc}": "against: x: ctc; expected names of arms other than ctc",
    "arms: {ctc: {}, x: {}, y: {}}\nagainst: {x: y, y: x}": "which is compared with ctc itself",
    "arms: {ctc: {}, x: {}}\nagainst: [x]": "against is ['x']; expected names",
    "arms: {ctc: {}, x: {render: {level: easy}}, y: {}}\nagainst: {y: x}": "arms.y and x differ in 'render'",
    "- 1": "expected keys such as 'arms:', found list",
}


@pytest.mark.parametrize("text", BAD)
def test_invalid_plans_print_one_line(text, tmp_path, capsys):
    (tmp_path / "p.yaml").write_text(
        ("config: {optim: {steps: 2}}\n" if "config" not in text and text[0] != "-" else "\n") + text
    )
    assert main(["compare", str(tmp_path / "p.yaml"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert BAD[text] in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_arm_whose_data_differ_needs_a_baseline_of_its_own(tmp_path):
    """Its baseline may have other data than the plan's, but the arm must have the data of its baseline."""
    path, look = tmp_path / "p.yaml", "{render: {level: easy}}"
    path.write_text(f"arms: {{ctc: {{}}, easy: {look}, flow1: {{render: {{level: easy}}, loss: {{preset: flow1}}}}}}\n")
    with pytest.raises(UserError, match="arms.easy and ctc differ in 'render'"):
        grid.read(path)
    path.write_text(path.read_text() + "against: {flow1: easy}\n")
    assert grid.read(path).against == {"flow1": "easy"}


OTHERS = {
    "weight": (
        "flow1: {loss: {preset: flow1}}",
        "flow1: {loss: {preset: flow1, weight: 3}}",
        "settings than the plan's",
    ),
    "start": (
        "start: {optim: {steps: 2}}",
        "start: {optim: {steps: 3}}",
        "start/seed-0: was trained with other settings",
    ),
    "model": (
        "model: {backbone: tiny, hidden: 8}",
        "model: {hidden: 16}",
        "start/seed-0: was trained with other settings",
    ),
    "tests": ("tests: {lines: 6", "tests: {lines: 7", "the existing test sets were made with other settings"),
    "groups": (
        "estimate_lines: 4",
        "estimate_lines: 4\ngroups: own.txt",
        "the existing test sets were made with other settings",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", OTHERS)
def test_different_plan_in_the_same_folder_is_rejected(change, comparison, tmp_path, capsys):
    """And leaves everything as it was."""
    old, new, message = OTHERS[change]
    assert old in PLAN
    (tmp_path / "p.yaml").write_text(PLAN.replace(old, new), encoding="utf-8")
    (tmp_path / "own.txt").write_text("未末\n", encoding="utf-8")
    before = {p: p.read_bytes() for p in comparison.rglob("*") if p.is_file()}
    assert main(["compare", str(tmp_path / "p.yaml"), "--out", str(comparison)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert {p: p.read_bytes() for p in comparison.rglob("*") if p.is_file()} == before


@pytest.mark.slow
def test_predictions_for_other_lines_are_rejected(comparison, plan, tmp_path, capsys):
    out = tmp_path / "copy"
    shutil.copytree(comparison, out)
    labels = out / "tests" / "full" / "labels.txt"
    rows = labels.read_text(encoding="utf-8").splitlines()
    labels.write_text("\n".join([rows[0].split("\t")[0] + "\t一", *rows[1:]]) + "\n", encoding="utf-8")
    assert main(["compare", str(plan), "--out", str(out)]) == 2
    assert "start/seed-0/full.txt: predictions for other lines than those of full" in capsys.readouterr().err


@pytest.mark.slow
def test_unfinished_comparison_is_reported(comparison, tmp_path, capsys):
    """A run of the baseline and a test set of an arm are missing, a log is damaged, a stray file is there."""
    out = tmp_path / "copy"
    shutil.copytree(comparison, out)
    shutil.rmtree(out / "ctc" / "seed-0")
    (out / "flow1" / "seed-1" / "lookalike.txt").unlink()
    (out / "flow1" / "seed-0" / "stray.txt").write_text("a\tb\tc\n")
    with (out / "flow1" / "seed-1" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "los}\n{"st')
    compared = results.collect(out)
    assert list(compared.arms) == ["full", "lookalike"]
    assert compared.missing == 2
    assert compared.seeds == {"start": 1, "ctc": 1, "flow1": 0}
    warnings = " ".join(compared.warnings())
    assert "2 runs have not finished." in warnings
    assert "metrics.jsonl is corrupted; the speed is unknown." in warnings
    assert main(["report", str(out), "--checkpoint", "latest"]) == 2
    assert "is a comparison, which always uses the last checkpoints" in capsys.readouterr().err
    (out / "comparison.json").write_text("[]")
    assert main(["report", str(out)]) == 2
    assert "not a comparison; expected the --out" in capsys.readouterr().err


class Checker(HTMLParser):
    """Collects what a page would load, its headings, and tags left open."""

    def __init__(self):
        super().__init__()
        self.loads, self.tags, self.open, self.alts = [], set(), [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        self.loads += [v for k, v in values.items() if k in ("src", "href", "srcset", "action", "data") and v]
        if tag == "img":
            self.alts.append(values.get("alt"))
        if tag not in ("meta", "link", "img", "br") and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(comparison):
    assert main(["report", str(comparison), "--projector", str(comparison / "projector")]) == 0
    return comparison / "report.html"


@pytest.mark.slow
def test_report_page_is_valid_and_self_contained(report):
    text = report.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    assert not {"script", "iframe", "object", "form"} & checker.tags
    assert all(load.startswith(("#", "data:")) for load in checker.loads)
    assert not re.search(r"url\(|@import|https?:", text)
    assert all(checker.alts)
    for heading in (
        "Accuracy",
        "Differences",
        "Training curves",
        "Confusions",
        "Distances",
        "features before",
        "Hardest",
    ):
        assert heading in text
    assert "another seed" not in text


@pytest.mark.slow
def test_projector_has_one_image_per_character(report):
    folder = report.parent / "projector"
    (config,) = folder.glob("*.pbtxt")
    paths = dict(re.findall(r'(\w+_path): "(.*)"', config.read_text()))
    vectors = (folder / paths["tensor_path"]).read_text().splitlines()
    names = (folder / paths["metadata_path"]).read_text(encoding="utf-8").splitlines()
    assert names[0] == "character\tline"
    assert len(vectors) == len(names) - 1 > 0
    assert all(len(row.split("\t")) == 16 for row in vectors)
    assert config.read_text().count("tensor_path") == 1
    side = -(-(len(vectors) ** 0.5) // 1)
    with Image.open(folder / paths["image_path"]) as sprite:
        assert sprite.size == (side * 32, side * 32)
        darkest, lightest = sprite.convert("L").crop((0, 0, sprite.width, 32)).getextrema()
    assert darkest < 128 < lightest


@pytest.mark.slow
def test_report_of_a_single_run(comparison, tmp_path, capsys):
    lines = comparison / "tests" / "full" / "labels.txt"
    out = tmp_path / "page.html"
    assert main(["report", str(comparison / "flow1" / "seed-0"), "--data", str(lines), "--out", str(out)]) == 0
    assert "Distances to centers" in out.read_text(encoding="utf-8")
    assert main(["report", str(comparison / "flow1" / "seed-0")]) == 2
    assert "give --data FILE" in capsys.readouterr().err
    assert main(["report", str(tmp_path)]) == 2
    assert "not a run folder" in capsys.readouterr().err


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_report_page_in_a_browser(report, tmp_path):
    """It is shown without a word on the console, and no request leaves it."""
    quiet = """
        --headless --disable-background-networking --disable-component-update --disable-sync --no-first-run
        --disable-quic --disable-gpu --no-sandbox --enable-logging=stderr --window-size=390,1200
    """.split()

    def shown(url, name):
        shot, log = tmp_path / f"{name}.png", tmp_path / f"{name}.json"
        own = [f"--user-data-dir={tmp_path / name}", f"--log-net-log={log}", f"--screenshot={shot}"]
        command = [CHROMIUM, *quiet, *own, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert shot.exists(), done.stderr[-500:]
        return done.stderr, re.findall(r'"url":"(\w+:[^"]*)"', log.read_text(errors="replace"))

    # The browser asks its maker a thing or two when it starts; what a page asks for is seen beside that.
    (tmp_path / "other.html").write_text('<img src="http://127.0.0.1:9/x.png"><script>console.log("heard")</script>')
    console, requests = shown((tmp_path / "other.html").as_uri(), "other")
    assert "heard" in console
    assert any(url.startswith("http://127.0.0.1:9/") for url in requests)
    own = {url for url in requests if "127.0.0.1" not in url}
    console, requests = shown(report.as_uri(), "page")
    assert "CONSOLE" not in console
    assert not [url for url in requests if url.startswith("http") and "127.0.0.1" in url]
    assert {url.split("/")[2] for url in requests if url.startswith("http")} <= {
        u.split("/")[2] for u in own if "//" in u
    }


def test_committed_plans_are_valid():
    for path in sorted(Path(__file__).parents[2].glob("scripts/does_it_help*.yaml")):
        assert grid.read(path).baseline == "ctc"
    small = SimpleNamespace(config=Config(), place="small")
    remedies = grid.read(Path(__file__).parents[2] / "scripts" / "remedies.yaml", opener=lambda place: small)
    assert remedies.origin is small
    both, alone = remedies.arms["flow1+swap"].loss, remedies.arms["swap"].loss
    assert (both.preset, both.terms) == ("flow1", alone.terms)
    assert len(remedies.arms) == 9
    assert read_groups(remedies.groups) == read_groups(remedies.start.text.groups)
