"""Describe the architecture from the imports in the code.

python scripts/architecture.py                                 # print the figures of docs/architecture.md
python scripts/architecture.py docs/images/architecture.svg    # draw its picture
"""

import functools
import sys
import tomllib
from collections.abc import Sequence
from itertools import pairwise, permutations
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "jaxcrnn"
EVERYWHERE = {"errors", "__main__"}  # not drawn, like the private helpers: nearly every module imports `errors`

WIDTH, ROW, TOP = 960, 74, 52
BOX, HEIGHT, GAP, LANE = 112, 34, 20, 10  # LANE: the width of an arrow that passes a row
NUMERICS, OTHER, LINE, TEXT = "#0b7285", "#5c6773", "#868e96", "#ffffff"


def main() -> None:
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(picture(), encoding="utf-8")
    else:
        figures()


def figures() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    root = [path.stem for path in files if path.parent == PACKAGE and not path.stem.startswith("__")]
    lines = {path.relative_to(PACKAGE).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    graph = import_graph()

    @functools.cache
    def chain(module: str) -> tuple[str, ...]:
        """The longest chain of imports that begins at a module."""
        below = (chain(other) for other in graph.find_modules_directly_imported_by(module))
        return (module, *max(below, key=len, default=()))

    longest = max((chain(module) for module in sorted(graph.modules)), key=len)
    print(f"modules: {len(files)}; at the root: {len(root)} ({', '.join(root)})")
    print(f"lines: {sum(lines.values())}; over 300: {[f'{n} {name}' for name, n in lines.items() if n > 300]}")
    print(f"longest chain of imports: {len(longest)} modules\n  " + "\n  ".join(longest))


def import_graph() -> grimp.ImportGraph:
    """The imports of the package in this checkout."""
    sys.path.insert(0, str(ROOT))
    try:
        return grimp.build_graph("jaxcrnn", cache_dir=None)
    finally:
        sys.path.remove(str(ROOT))


def layers() -> tuple[list[list[str]], set[str]]:
    """The layers of pyproject.toml, top first, and the modules that must not import devices, files or runs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    (stack,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    (numerics,) = (contract for contract in contracts if "jaxcrnn.runs" in contract.get("forbidden_modules", ()))
    rows = [[name.strip() for name in row.split("|")] for row in stack]
    rows = [[name for name in row if not name.startswith("_") and name not in EVERYWHERE] for row in rows]
    return [row for row in rows if row], {name.removeprefix("jaxcrnn.") for name in numerics["source_modules"]}


def arrows(drawn: set[str]) -> dict[str, set[str]]:
    """Imports between the modules and folders of the root, without those that a chain of others implies."""
    graph = import_graph()
    below: dict[str, set[str]] = {name: set() for name in drawn}
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            ends = [path.split(".")[1] if "." in path else "" for path in (module, other)]
            if ends[0] != ends[1] and drawn.issuperset(ends):
                below[ends[0]].add(ends[1])

    @functools.cache
    def reached(name: str) -> frozenset[str]:
        return frozenset(below[name]).union(*(reached(other) for other in below[name]))

    return {
        name: {other for other in others if not any(other in reached(via) for via in others)}
        for name, others in below.items()
    }


def lanes(rows: list[list[str]]) -> tuple[list[list[str]], list[tuple[str, str]], list[list[str]]]:
    """Split each arrow into steps from one row to the next; ``a>b@2`` is where a>b passes row 2.

    Returns:
      The rows with these passages, the steps, and each arrow as its nodes from top to bottom.
    """
    row_of = {name: i for i, row in enumerate(rows) for name in row}
    full, steps, routes = [list(row) for row in rows], [], []
    for name, others in sorted(arrows(set(row_of)).items()):
        for other in sorted(others):
            passages = {i: f"{name}>{other}@{i}" for i in range(row_of[name] + 1, row_of[other])}
            for i, passage in passages.items():
                full[i].append(passage)
            routes.append([name, *passages.values(), other])
            steps += pairwise(routes[-1])
    return full, steps, routes


def width(node: str) -> int:
    return LANE if "@" in node else BOX


def spread(row: list[str], wanted: dict[str, float]) -> dict[str, float]:
    """Middles of a row's nodes: as near to the wanted places as their order and widths allow (isotonic regression)."""
    room = [0.0]
    for left, right in pairwise(row):
        gap = LANE if "@" in left or "@" in right else GAP
        room.append(room[-1] + (width(left) + width(right)) / 2 + gap)
    low, high = 8 + width(row[0]) / 2, WIDTH - 8 - width(row[-1]) / 2 - room[-1]
    blocks: list[list[float]] = []
    for node, offset in zip(row, room, strict=True):
        blocks.append([wanted[node] - offset])
        while len(blocks) > 1 and mean(blocks[-2]) > mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    shifts = [min(max(mean(block), low), high) for block in blocks for _ in block]
    return {node: shift + offset for node, shift, offset in zip(row, shifts, room, strict=True)}


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def crossings(upper: dict[str, float], lower: dict[str, float], steps: list[tuple[str, str]]) -> int:
    ends = [(upper[a], lower[b]) for a, b in steps if a in upper and b in lower]
    return sum((a - c) * (b - d) < 0 for (a, b), (c, d) in permutations(ends, 2)) // 2


def places(full: list[list[str]], steps: list[tuple[str, str]]) -> dict[str, tuple[float, int]]:
    """The place and row of each node: the best of many sweeps that move nodes to the mean of their neighbors."""
    x = {}
    for row in full:
        x.update(spread(row, {node: WIDTH * (i + 1) / (len(row) + 1) for i, node in enumerate(row)}))
    above = {node: [a for a, b in steps if b == node] for row in full for node in row}
    below = {node: [b for a, b in steps if a == node] for row in full for node in row}
    best, least = dict(x), float("inf")
    for sweep in range(60):
        rows, sides = (full, (above, below)) if sweep % 2 == 0 else (full[::-1], (below, above))
        for row in rows:
            for side in sides if sweep > 40 else sides[:1]:
                near = {node: mean([x[other] for other in side[node]] or [x[node]]) for node in row}
                row.sort(key=lambda node, near=near: (near[node], node))
                x.update(spread(row, near))
        cost = sum(crossings({n: x[n] for n in a}, {n: x[n] for n in b}, steps) for a, b in pairwise(full))
        length = sum(abs(x[a] - x[b]) for a, b in steps)
        if cost * 150 + length < least:
            best, least = dict(x), cost * 150 + length
    return {node: (best[node], i) for i, row in enumerate(full) for node in row}


def picture() -> str:
    """The picture as SVG, the same for the same imports."""
    rows, numerics = layers()
    full, steps, routes = lanes(rows)
    place = places(full, steps)
    curves = [f'<path d="{route_path([place[node] for node in route])}"/>' for route in routes]
    boxes = [box(name, *place[name], NUMERICS if name in numerics else OTHER) for row in rows for name in row]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {TOP + (len(rows) - 1) * ROW + HEIGHT}" '
            'role="img" font-size="14">',
            "<title>Layers of jaxcrnn: its modules and folders, and what each imports</title>",
            '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker>',
            f'<g font-family="system-ui, sans-serif" fill="{LINE}">',
            *legend(),
            "</g>",
            f'<g fill="none" stroke="{LINE}" stroke-width="1.3" marker-end="url(#head)">',
            *curves,
            "</g>",
            f'<g fill="{TEXT}" font-family="ui-monospace, monospace" text-anchor="middle">',
            *boxes,
            "</g>",
            "</svg>\n",
        ]
    )


def box(name: str, x: float, row: int, color: str) -> str:
    y = TOP + row * ROW
    label = name if (PACKAGE / f"{name}.py").exists() else f"{name}/"
    return (
        f'<rect x="{x - BOX / 2:.0f}" y="{y - HEIGHT // 2}" width="{BOX}" height="{HEIGHT}" rx="6" fill="{color}"/>'
        f'<text x="{x:.0f}" y="{y + 5}">{label}</text>'
    )


def route_path(points: list[tuple[float, int]]) -> str:
    """A curve from the lower edge of the first box, past the rows between, to the upper edge of the last."""
    (x, i), end = points[0], len(points) - 1
    y = TOP + i * ROW + HEIGHT / 2
    parts = [f"M{x:.0f} {y:.0f}"]
    for k, (to_x, row) in enumerate(points[1:], 1):
        to_y = TOP + row * ROW - HEIGHT / 2 - (1 if k == end else 0)
        middle = (y + to_y) / 2
        parts.append(f"C{x:.0f} {middle:.0f} {to_x:.0f} {middle:.0f} {to_x:.0f} {to_y:.0f}")
        if k != end:
            parts.append(f"V{to_y + HEIGHT:.0f}")
        x, y = to_x, to_y + HEIGHT
    return "".join(parts)


def legend() -> list[str]:
    entries = (
        (8, NUMERICS, "numerics, independent of devices, files and runs"),
        (360, OTHER, "everything else"),
    )
    return [
        f'<rect x="{x}" y="4" width="14" height="14" rx="3" fill="{color}"/><text x="{x + 22}" y="16">{text}</text>'
        for x, color, text in entries
    ]


if __name__ == "__main__":
    main()
