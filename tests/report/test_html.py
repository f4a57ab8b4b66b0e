"""The page's template: what is text is escaped, what is HTML stays."""

from types import SimpleNamespace

import numpy as np
import pytest
from markupsafe import Markup

from jaxcrnn.charset import Charset
from jaxcrnn.render import atlas
from jaxcrnn.report import html, panels
from jaxcrnn.report.features import Features, Seen

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def reader():
    """It reads two lines, one of them wrong, and its name, like what it reads, would be code."""
    features = Features(np.eye(4, dtype=np.float32), np.asarray([1, 1, 2, 2]), np.zeros(4, int), np.zeros(4))
    seen = [Seen(0, HOSTILE, [0.5] * len(HOSTILE), [0.0]), Seen(1, "<>", [0.9, 0.8], [0.0, 1.0])]
    return panels.Reader(HOSTILE, seen, features)


CORPUS = SimpleNamespace(
    texts=["<script>aIert(1)</script>", "<>"],
    image=lambda item: np.zeros((32, 40), np.uint8),
    widths=np.asarray([40, 40]),
)


def test_labels_are_escaped_in_every_panel(reader):
    shown = panels.confused([reader], CORPUS, ["Il"], atlas.embedded().select("abc"), {HOSTILE: 2})
    lines = panels.lines(reader, CORPUS, {0: 1.0, 1: 2.0})
    mapped = panels.feature_map([reader], Charset("<>"), ["<>"])
    log = {HOSTILE: [[{"step": 1, "ctc": 2.0}, {"step": 2, "ctc": 1.0}]]}
    sections = [
        html.Section("a", HOSTILE, shown),
        html.Section("b", "b", lines),
        html.Section("c", "c", mapped),
        html.Section("d", "d", panels.curves(log, alone=True)),
    ]
    page = html.page(HOSTILE, html.text(HOSTILE), sections)
    for made in (shown, lines, mapped, page):
        assert isinstance(made, Markup)
        assert "<script" not in made
    assert "read: &lt;script&gt;alert(1)&lt;/script&gt; (50.0% for l)" in shown
    assert "<p>read: &lt;script&gt;alert" in lines
    assert lines.count("<p>read: ") == 2
    assert page.count("<svg") == 3
    assert page.count("<img ") == 5
    assert '<li class="f0">&lt;&gt;</li>' in mapped


def test_unmarked_text_is_escaped():
    page = html.page("t", "<b>lead</b>", [html.Section("a", "A", HOSTILE)])
    assert "&lt;b&gt;lead" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script" not in html.cards([HOSTILE]) + html.charts([("", HOSTILE)]) + html.details("", HOSTILE)


def test_tables_keep_line_breaks_and_align_numbers():
    made = html.table(["name", "n"], [("a", "1\n2"), ("b", 3)], 'x"y')
    assert "<td>1<br>2</td>" in made
    assert 'aria-label="x&#34;y"' in made
    assert '<th scope="col" class="n">n</th>' in html.table(["name", "n"], [("a", "+7.5%")], "")
