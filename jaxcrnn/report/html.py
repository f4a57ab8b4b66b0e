"""The report as one HTML file that needs nothing else: no script, no address outside, light and dark, phone and screen
reader. Every text that comes from data is escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from jaxcrnn.data.images import to_png

# Nothing may be loaded from anywhere and nothing may run, whatever a label says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1f; --soft: #5c5f66; --rule: #d9dbe0; --box: #f4f5f7;
  --c0: #0072b2; --c1: #d55e00; --c2: #00805e; --c3: #b3508b; --c4: #8a6d00; --c5: #2b8cbe; --c6: #9a3324; --c7: #555; }
@media (prefers-color-scheme: dark) { :root { --paper: #16171a; --ink: #e8e8ea; --soft: #a3a6ad; --rule: #3a3d44;
  --box: #202227; --c0: #56b4e9; --c1: #ff9d5c; --c2: #2fd3a7; --c3: #e69ac8; --c4: #f0e442; --c5: #8ecaff;
  --c6: #ff8f7d; --c7: #bbb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
p, li { max-width: 46rem; } .soft { color: var(--soft); }
nav ul, .keys { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .3rem 1rem; }
a { color: var(--c0); } :focus-visible { outline: 3px solid var(--c1); outline-offset: 2px; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--rule); white-space: nowrap;
  vertical-align: top; }
thead th { white-space: normal; min-width: 5rem; }
th[scope=row] { position: sticky; left: 0; background: var(--paper); }
summary { cursor: pointer; font-weight: 600; }
td.n, th.n { text-align: right; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; } figcaption { font-weight: 600; }
.chart { width: 100%; height: auto; font: 11px system-ui, sans-serif; fill: var(--ink); }
.chart polyline, .key line { fill: none; stroke-width: 2; } .chart .grid { stroke: var(--rule); } .key { width: 26px; }
.chart .axis { stroke: var(--ink); } .chart .bar { stroke: var(--c0); stroke-width: 3; }
.chart .dot { fill: var(--c0); }
.keys { font-size: .85rem; } .keys svg { margin-right: .35rem; vertical-align: middle; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: 1rem; }
.card { background: var(--box); border: 1px solid var(--rule); border-radius: .5rem; padding: .8rem; }
.card p { margin: .3rem 0; }
.pair { display: flex; gap: .6rem; align-items: center; font-size: 1.6rem; line-height: 1; min-height: 48px; }
.as { font-size: .85rem; color: var(--soft); }
.line { max-width: 100%; height: auto; max-height: 40px; background: #fff; border: 1px solid var(--rule); }
.glyph { width: 48px; height: 48px; background: #fff; border: 1px solid var(--rule); }
""" + "".join(
    f".s{i} {{ stroke: var(--c{i}); }} .f{i} {{ fill: var(--c{i}); color: var(--c{i}); }}\n" for i in range(8)
)


class Section(NamedTuple):
    """A part of the page."""

    name: str
    heading: str
    body: str


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole file.

    Args:
      title: as text.
      lead: HTML before the sections.
      sections: with HTML bodies.
    """
    links = "".join(f'<li><a href="#{s.name}">{escape(s.heading)}</a></li>' for s in sections)
    parts = "".join(
        f'<section id="{s.name}" aria-labelledby="{s.name}-h"><h2 id="{s.name}-h">{escape(s.heading)}</h2>{s.body}'
        "</section>\n"
        for s in sections
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<link rel="icon" href="data:,">\n<style>{STYLE}</style></head>\n'
        f"<body><header><h1>{escape(title)}</h1>{lead}</header>\n"
        f'<nav aria-label="Parts of this page"><ul>{links}</ul></nav>\n<main>\n{parts}</main></body></html>\n'
    )


def text(*paragraphs: str) -> str:
    """Paragraphs of plain text."""
    return "".join(f"<p>{escape(p)}</p>" for p in paragraphs)


def subheading(words: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(words)}</h3>"


def bullets(items: Sequence[str]) -> str:
    """A list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def details(summary: str, body: str) -> str:
    """HTML that is folded away until it is asked for."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], label: str) -> str:
    """A table that scrolls by itself where the screen is narrow, by keyboard, too."""
    numeric = [all(_is_number(row[i]) for row in rows) for i in range(len(head))]
    kind = ["" if not n else ' class="n"' for n in numeric]
    top = "".join(f'<th scope="col"{k}>{escape(h)}</th>' for h, k in zip(head, kind, strict=True))
    body = ""
    for row in rows:
        first, *rest = row
        cells = "".join(f"<td{k}>{_lines(c)}</td>" for c, k in zip(rest, kind[1:], strict=True))
        body += f'<tr><th scope="row"{kind[0]}>{escape(str(first))}</th>{cells}</tr>'
    name = escape(label, quote=True)
    return (
        f'<div class="scroll" role="region" aria-label="{name}" tabindex="0"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _lines(cell: object) -> str:
    return escape(str(cell)).replace("\n", "<br>")


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) or str(cell).strip("%+-").replace(".", "", 1).isdigit() or cell == ""


def charts(figures: Sequence[tuple[str, str]]) -> str:
    """Charts with captions, side by side where there is room."""
    inside = "".join(f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>" for caption, svg in figures)
    return f'<div class="charts">{inside}</div>'


def cards(items: Sequence[str]) -> str:
    """Boxes of HTML, side by side where there is room."""
    return '<div class="cards">' + "".join(f'<div class="card">{item}</div>' for item in items) + "</div>"


def picture(gray: np.ndarray, alt: str, kind: str) -> str:
    """A gray image ``[h,w]`` inside the page."""
    data = base64.b64encode(to_png(gray)).decode()
    return (
        f'<img class="{kind}" alt="{escape(alt, quote=True)}" width="{gray.shape[1]}" height="{gray.shape[0]}" '
        f'src="data:image/png;base64,{data}">'
    )
