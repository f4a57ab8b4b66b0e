"""Prints the figures of docs/architecture.md: modules, lines, and the longest chain of imports.

python scripts/architecture.py
"""

import functools
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1] / "jaxcrnn"


def main() -> None:
    files = sorted(ROOT.rglob("*.py"))
    root = [path.stem for path in files if path.parent == ROOT and not path.stem.startswith("__")]
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    graph = grimp.build_graph("jaxcrnn", cache_dir=None)

    @functools.cache
    def chain(module: str) -> tuple[str, ...]:
        """The longest chain of imports that begins at a module."""
        below = (chain(other) for other in graph.find_modules_directly_imported_by(module))
        return (module, *max(below, key=len, default=()))

    longest = max((chain(module) for module in sorted(graph.modules)), key=len)
    print(f"modules: {len(files)}; at the root: {len(root)} ({', '.join(root)})")
    print(f"lines: {sum(lines.values())}; over 300: {[f'{n} {name}' for name, n in lines.items() if n > 300]}")
    print(f"longest chain of imports: {len(longest)} modules\n  " + "\n  ".join(longest))


if __name__ == "__main__":
    main()
