"""Tries every kind of invalid or unusual input on the command line and writes what it answers as tables.

    python scripts/bad_input.py docs/bad-input.md [--before CHECKOUT] [--only SECTION]

With `--before`, each command also runs with the code of an earlier checkout, whose answer becomes another column.
The cases are in `scripts/bad_input_cases`. Needs PyTorch for the checkpoints of other programs.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.append(str(Path(__file__).parent / "bad_input_cases"))
sys.path.append(str(Path(__file__).parents[1] / "tests"))
import checkpoints
import configuration
import contents
import data_sets
import general
import images
import numerics
from case import SMALL, Case

HERE = Path(__file__).resolve().parent
SECTIONS = {
    "general": general,
    "data_sets": data_sets,
    "contents": contents,
    "images": images,
    "configuration": configuration,
    "checkpoints": checkpoints,
    "numerics": numerics,
}
RECORDED = "## Before and after\n"  # this part of the page is a record and stays as it is
LONGEST = 320  # characters of an answer
SECONDS = 300


class World:
    """A folder with all inputs, and the code that is called there.

    Args:
      root: the folder, which is created.
      code: checkout whose package is called.
    """

    def __init__(self, root: Path, code: Path) -> None:
        self.root, self.code = root, code
        root.mkdir()
        general.prepare(root)
        done = self.call(Case("", ["train", "--data", "good.txt", "--out", "run", *SMALL]))
        assert done.returncode == 0, done.stderr
        shutil.copytree(root / "run", root / "swapped")
        config = root / "swapped" / "config.yaml"
        config.write_text(config.read_text().replace("hidden: 8", "hidden: 9"))
        for section in list(SECTIONS.values())[1:]:
            section.prepare(root)

    def call(self, case: Case) -> subprocess.CompletedProcess[str]:
        if case.rows:
            (self.root / "rows.txt").write_text(case.rows)
        encoding = case.environment.get("PYTHONIOENCODING", "utf-8").partition(":")[0]
        command = [sys.executable, *([] if case.python else ["-m", "jaxcrnn"]), *case.arguments]
        if case.limit:  # as on a full disk, a write fails
            command = ["bash", "-c", f"trap '' XFSZ; ulimit -f {case.limit // 1024}; exec \"$@\"", "bash", *command]
        return subprocess.run(
            command,
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": str(self.code), "JAX_PLATFORMS": "cpu"} | case.environment,
            capture_output=True,
            encoding=encoding,
            errors="backslashreplace",
            timeout=SECONDS,
            check=False,
        )

    def answer(self, case: Case) -> tuple[str, bool]:
        """The answer with its exit code, and whether it is a fault: a traceback, or a folder left behind."""
        shutil.rmtree(self.root / "new", ignore_errors=True)
        done = self.call(case)
        left = (self.root / "new").exists() and done.returncode not in (0, 75) and not case.limit
        crashed = not case.python and ("Traceback" in done.stderr or done.returncode not in (0, 2, 75, 130))
        out, err = (
            [line for text in stream.splitlines() if (line := text.strip())] for stream in (done.stdout, done.stderr)
        )
        if case.python:
            shown = [(err or out or [""])[-1]]
        elif crashed:
            shown = ["traceback: " + (err or [""])[-1]]
        elif done.returncode:
            faults = [line for line in out if re.match(rf"({re.escape(str(self.root))}/)?\S+(, line \d+)?: ", line)]
            listed = any("listed above" in line for line in err)
            shown = faults[:2] if listed and faults else err[-1:] or out[-1:]
        else:
            notices = [line for line in err if not line.startswith("[")]
            shown = (out[:2] if case.arguments[0] == "data" else out[-1:]) + notices[-2:]
        text = (
            " / ".join(shown)
            .replace(f"{self.root}/", "")
            .replace(str(self.root), "FOLDER")
            .replace("\t", " ")
            .replace("|", "\\|")
            .replace("`", "'")
        )
        if len(text) > LONGEST:
            text = text[:LONGEST].rpartition(" ")[0] + " ..."
        return f"`{text}`" + (" and leaves a folder behind" if left else "") + f" ({done.returncode})", crashed or left


def shown_command(case: Case) -> str:
    if case.python:
        return case.arguments[-1].split("; ")[-1].strip()
    words = shlex.join(word for word in case.arguments if word not in SMALL[1:])
    words = re.sub(r" --set(?= --|$)", "", words).replace("|", "\\|")
    return "".join(f"{name}={value} " for name, value in case.environment.items()) + f"jaxcrnn {words}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="page to write")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="also run an earlier version")
    parser.add_argument("--only", choices=list(SECTIONS), help="run one section")
    args = parser.parse_args()
    lines = [
        "# Invalid input",
        "",
        "The tables list what jaxcrnn answers to each kind of invalid or unusual input, with the exit code in "
        "parentheses.",
        "`python scripts/bad_input.py docs/bad-input.md` writes these tables.",
        "For faults in data, it shows the first rows that the audit lists; the last line on standard error then counts "
        "all faults.",
        "No answer is a traceback, and nothing is left behind.",
    ]
    if args.before:
        lines.append("The column *before* has the answers of an earlier version to the same commands.")
    wrong = 0
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        codes = {"now": HERE.parent} | ({"before": args.before.resolve()} if args.before else {})
        worlds = list(pool.map(lambda item: World(Path(folder) / item[0], item[1]), codes.items()))
        for name in [args.only] if args.only else SECTIONS:
            columns = ["input", "command", *(["before"] if args.before else []), "answer"]
            lines += ["", f"## {SECTIONS[name].TITLE}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
            for case in SECTIONS[name].cases():
                now, *before = pool.map(lambda world, case=case: world.answer(case), worlds)
                wrong += now[1]
                cells = [case.what, f"`{shown_command(case)}`", *(text for text, _ in before), now[0]]
                lines.append(f"| {' | '.join(cells)} |")
                print(lines[-1], flush=True)
    kept = args.page.read_text(encoding="utf-8").partition(RECORDED)[1:] if args.page.exists() else ("", "")
    args.page.write_text("\n".join(lines) + "\n" + "".join(("\n", *kept) if kept[0] else ()), encoding="utf-8")
    print(f"{wrong} tracebacks or folders left behind", file=sys.stderr)
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
