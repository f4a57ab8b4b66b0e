"""What the demo compares, prints and writes; ``make demo`` does it in full."""

from pathlib import Path
from types import SimpleNamespace

import jaxcrnn
from jaxcrnn.cli import demo
from jaxcrnn.cli.main import main
from jaxcrnn.experiments import run
from jaxcrnn.interop import trained
from jaxcrnn.report import build
from jaxcrnn.runs.config import Config


def test_demo_compares_and_writes_a_report(tmp_path, monkeypatch, capsys):
    """What it compares and what it says; ``make demo`` does it in full."""
    calls = []
    monkeypatch.setattr(run, "compare", lambda plan, out: calls.append((plan, out)) or "results")
    monkeypatch.setattr(build, "write", lambda folder, page, **_: calls.append(folder) or page.write_text("page"))
    (tmp_path / "demo").mkdir()
    assert main(["demo", "--from-scratch", "--out", str(tmp_path / "demo")]) == 0
    (plan, out), page_of = calls
    assert plan.origin is None
    assert list(plan.arms) == ["ctc", "flow1", "flow2", "aligned"]
    assert plan.seeds == (0,)
    assert Path(plan.start.data.charset).exists()
    assert page_of == out == tmp_path / "demo"
    assert "jaxcrnn recognize" in capsys.readouterr().out
    monkeypatch.setattr(run, "compare", lambda plan, out: None)
    assert main(["demo", "--from-scratch", "--out", str(out)]) == 0
    assert f"resume with: jaxcrnn demo --from-scratch --out {out}" in capsys.readouterr().out


def test_demo_reads_lines_and_fine_tunes_the_pretrained_recogniser(tmp_path, monkeypatch, capsys):
    """What is printed, and what the page begins with; the recogniser reads a look-alike for every 末 here."""
    rows = [row.split("\t") for row in (demo.LINES / "labels.txt").read_text(encoding="utf-8").splitlines()]
    texts = [truth.replace("末", "未").replace("曰", "") for _, truth in rows]
    reader = SimpleNamespace(recognize=lambda images: [SimpleNamespace(text=text) for text in texts])
    monkeypatch.setattr(jaxcrnn, "load", lambda: reader)
    compared = SimpleNamespace(brief=lambda test: (["", "rate"], [["start", "1.00%"]]))
    plans, openings = [], []
    origin = SimpleNamespace(config=Config(), place="pretrained")
    monkeypatch.setattr(trained, "open_untrusted", lambda path: origin if path.name == "pretrained" else None)
    monkeypatch.setattr(run, "compare", lambda plan, out: plans.append(plan) or compared)

    def write(folder, page, *, opening, **_):
        openings.append(opening)
        page.write_text("page")

    monkeypatch.setattr(build, "write", write)
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert plans[0].origin is origin
    assert list(plans[0].arms) == ["ctc", "flow1", "flow2", "aligned"]
    shown = capsys.readouterr().out
    alike, lost = (sum(truth.count(c) for _, truth in rows) for c in "末曰")
    total = sum(len(truth) for _, truth in rows)
    counted = f"{total - alike - lost} of {total} characters read correctly, {alike} as a look-alike, {lost} otherwise"
    assert counted in shown
    assert shown.count("<- ") == sum(truth != text for (_, truth), text in zip(rows, texts, strict=True)) > 2
    assert "末 read as 未" in shown
    assert "proves nothing" in shown
    assert counted in openings[0].section.body
    assert "<td>1.00%</td>" in openings[0].section.body.replace(' class="n"', "")
    assert openings[0].section.body.count("<img") == len(rows) == 12
    assert '<mark class="alike">未</mark>' in openings[0].section.body
    assert openings[0].section.body.count('<mark class="wrong">·</mark>') == lost
