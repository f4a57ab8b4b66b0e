"""Fetches the packages of typefaces and texts that the pretrained recogniser is trained and tested on.

python scripts/fetch.py training OUT    # about 580 MB
python scripts/fetch.py testing OUT     # about 75 MB; also what the look-alike benchmark is made of

Each package of scripts/packages.yaml is unpacked to OUT/NAME, from its archive in OUT/archives, which is downloaded if
it is not there. Packages already in OUT are kept, so an interrupted call can be repeated. Needs apt-get and dpkg-deb
(Debian 12), npm, and Python with pip. A package that cannot be fetched is named, and skipped if it is optional.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

TABLE = Path(__file__).with_name("packages.yaml")


class Typeface(NamedTuple):
    """A typeface to draw.

    Attributes:
      package: its package.
      file: name of its file.
      pixels: size of a font of bitmaps, which is drawn at that size and then enlarged; 0 for outlines.
      latin: whether only Latin letters, digits and signs are drawn.
      groups: whether look-alikes are searched in it.
    """

    package: str
    file: str
    pixels: int
    latin: bool
    groups: bool

    @property
    def name(self) -> str:
        """Name in an atlas."""
        return Path(self.file).stem


def packages(part: str, trial: bool = False) -> dict[str, dict[str, Any]]:
    """The packages of a part, ``"training"`` or ``"testing"``, by name; only those of the trial if asked for."""
    table: dict[str, dict[str, Any]] = yaml.safe_load(TABLE.read_text(encoding="utf-8"))[part]
    return {name: entry for name, entry in table.items() if entry.get("trial") or not trial}


def typefaces(part: str) -> list[Typeface]:
    """The typefaces of a part, in the order of the table."""
    found = []
    for name, entry in packages(part).items():
        for file in entry.get("files", ()):
            file, pixels = next(iter(file.items())) if isinstance(file, dict) else (file, 0)
            found.append(Typeface(name, file, pixels, bool(entry.get("latin")), bool(entry.get("groups"))))
    return found


def find(folder: Path, typeface: Typeface) -> Path | None:
    """The file of a typeface in a folder of packages; None if its package is missing."""
    return next(iter(sorted((folder / typeface.package).rglob(typeface.file))), None)


def licence(folder: Path, part: str, name: str) -> str:
    """The licence of a fetched package: as its copyright file states it, or, if that is free text, as the table does.

    Parts of a machine-readable copyright file that concern only the packaging (``debian/*``) are skipped.
    """
    stated = packages(part)[name].get("licence")
    if stated:
        return str(stated)
    names: dict[str, None] = {}
    for stanza in copyright_file(folder, name).read_text(encoding="utf-8").split("\n\n"):
        fields = dict(line.split(":", 1) for line in stanza.splitlines() if line[:1].isalpha() and ":" in line)
        files = fields.get("Files", "").split()
        if files and not all(file.startswith("debian/") or file.endswith(".xml") for file in files):
            names[fields["License"].strip()] = None
    return ", ".join(names)


def copyright_file(folder: Path, name: str) -> Path:
    """The file of a fetched package that states its licence."""
    places = ("usr/share/doc/*/copyright", "package/LICENSE_FONT", "*/LICENSE*", "*/PKG-INFO")
    return next(path for place in places for path in sorted((folder / name).glob(place)))


class Failed(Exception):
    """A package could not be fetched, with the reason."""


def run(*command: str, folder: Path | None = None) -> str:
    """Runs a command and returns what it printed.

    Raises:
      Failed: the program is missing or reports an error.
    """
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise Failed(f"{command[0]} is not installed") from None
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Failed(next((line for line in lines if "rror" in line or line.startswith("E:")), "".join(lines[-1:])))
    return done.stdout


def archive(name: str, entry: dict[str, Any], folder: Path) -> Path:
    """The archive of a package in a folder, downloaded if it is not there."""
    source, version = entry.get("from", "debian"), entry.get("version", "")
    patterns = {"debian": f"{name}_*.deb", "npm": f"expo-google-fonts-{name}-*.tgz", "pip": f"{name}-{version}.tar.gz"}
    commands = {
        "debian": ("apt-get", "download", "-qq", name),
        "npm": ("npm", "pack", "--silent", f"@expo-google-fonts/{name}@{version}"),
        # The source archive: wheels may lack data.
        "pip": (sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name, f"{name}=={version}"),
    }
    if not list(folder.glob(patterns[source])):
        run(*commands[source], folder=folder)
    return max(folder.glob(patterns[source]), default=None) or _missing(patterns[source])


def _missing(pattern: str) -> Path:
    raise Failed(f"the download left no {pattern}")


def fetch(name: str, entry: dict[str, Any], out: Path, archives: Path) -> None:
    """Unpacks a package to ``out / name``, which exists only once it is complete."""
    part = out / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        path = archive(name, entry, archives)
        if entry.get("from", "debian") == "debian":
            run("dpkg-deb", "-x", str(path.resolve()), str(part))
        else:
            with tarfile.open(path) as file:
                file.extraction_filter = getattr(tarfile, "data_filter", None)  # since Python 3.11.4
                file.extractall(part)
        part.rename(out / name)
    except (OSError, tarfile.TarError) as error:
        raise Failed(str(error)) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("training", "testing"))
    parser.add_argument("out", type=Path, help="folder of the packages")
    parser.add_argument("--archives", type=Path, help="folder of the downloaded archives (default: OUT/archives)")
    parser.add_argument("--trial", action="store_true", help="only the few packages of the trial")
    args = parser.parse_args()
    archives = args.archives or args.out / "archives"
    for folder in (args.out, archives):
        folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: entry for name, entry in packages(args.part, args.trial).items() if not (args.out / name).exists()}
    debian = [name for name, entry in wanted.items() if entry.get("from", "debian") == "debian"]
    if not all(list(archives.glob(f"{name}_*.deb")) for name in debian):
        try:
            # apt-get download takes the newest version that the package lists name, so the lists must be current.
            run("apt-get", "update", "-qq")
        except Failed as error:
            print(f"apt-get update: {error}; using the package lists that there are", file=sys.stderr)
    failed = {}
    for number, (name, entry) in enumerate(wanted.items(), start=1):
        if os.isatty(1):
            print(f"\r{number}/{len(wanted)} {name:40}", end="", flush=True)
        try:
            fetch(name, entry, args.out, archives)
        except Failed as error:
            failed[name] = "" if entry.get("required") else "; skipped"
            print(f"{name}: cannot be fetched: {error}{failed[name]}", file=sys.stderr)
    here = [name for name in packages(args.part, args.trial) if (args.out / name).exists()]
    print(f"{args.out}: {len(here)} packages for {args.part}, {len(failed)} could not be fetched")
    if not all(failed.values()) or not here:
        sys.exit(2)


if __name__ == "__main__":
    main()
