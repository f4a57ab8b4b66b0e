"""Writes docs/api.md from the docstrings: python scripts/api_page.py docs/api.md"""

import inspect
import re
import sys
from pathlib import Path

import griffe

MODULES = (
    ("A trained recogniser", ("interop.recognizer", "decoding.decoder", "decoding.beam", "decoding.automata",
                              "decoding.ngram", "decoding.evaluate")),
    ("Numerics", ("ctc", "assign", "losses", "centers", "decode", "diagnostics", "kernels.logits",
                  "kernels.center_ops", "kernels.mesh_ops")),
    ("Model and step", ("types", "model", "objective", "optim", "train", "convert")),
    ("Runs and devices", ("runs.compile", "runs.checkpoint", "runs.extensions", "parallel.mesh", "parallel.ops")),
    ("Texts and data", ("charset", "errors", "metrics", "lookalikes.confusions", "lookalikes.similarity",
                        "lookalikes.groups", "experiments.bootstrap", "data.labels", "data.audit", "render.texts")),
)  # fmt: skip
LONG = 100


def main() -> None:
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    root = griffe.load("jaxcrnn", search_paths=[Path(__file__).resolve().parents[1]], docstring_parser="google")
    made = "Made from the docstrings by `python scripts/api_page.py docs/api.md`. Shapes are written with the axes of"
    links = [
        f"- {title}: " + ", ".join(f"[{n}](#{_anchor(f'jaxcrnn.{n}')})" for n in names) for title, names in MODULES
    ]
    out = ["# Reference", f"{made} `jaxcrnn.types`:", f"```text\n{_axes(root['types'])}\n```", "\n".join(links)]
    for title, names in MODULES:
        out.append(f"## {title}")
        for name in names:
            out += _module(root[name])
    return "\n\n".join(out) + "\n"


def _axes(types: griffe.Module) -> str:
    return inspect.cleandoc("\n".join(types.docstring.value.split("\n")[1:])).strip("\n")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _module(module: griffe.Module) -> list[str]:
    first = "" if module.name == "types" else f"\n\n{_docstring(module)}"
    out = [f"### jaxcrnn.{module.path.removeprefix('jaxcrnn.')}{first}"]
    for name, member in module.members.items():
        if member.is_alias or name.startswith("_") or not member.docstring:
            continue
        if member.is_function or member.is_class:
            out += _member(member, module)
            public = (m for n, m in member.members.items() if not n.startswith("_"))
            for inner in public if member.is_class else ():
                if not inner.is_alias and inner.docstring and (inner.is_function or "property" in inner.labels):
                    out += _member(inner, module)
    return out


def _member(member: griffe.Object, module: griffe.Module) -> list[str]:
    name = member.path.removeprefix(module.path + ".")
    return [f"#### {name}", f"```python\n{_signature(member, name)}\n```", _docstring(member)]


def _signature(member: griffe.Object, name: str) -> str:
    if member.is_attribute:
        return f"{name}: {member.annotation}"
    if member.is_class:
        fields = [f"{a.name}: {a.annotation}" + (f" = {a.value}" if a.value is not None else "")
                  for a in member.members.values() if a.is_attribute and a.annotation
                  and not a.name.startswith("_") and "property" not in a.labels]  # fmt: skip
        made = member.members.get("__init__")
        if made is not None and made.is_function:
            return _call(name, [_parameter(p) for p in made.parameters if p.name != "self"], "")
        return _call(name, fields, "")
    kinds, parts = griffe.ParameterKind, []
    for p in member.parameters:
        if p.name in ("self", "cls"):
            continue
        if p.kind is kinds.keyword_only and not any(part.startswith("*") for part in parts):
            parts.append("*")
        parts.append(_parameter(p))
    return _call(name, parts, f" -> {member.returns}" if member.returns else "")


def _parameter(p: griffe.Parameter) -> str:
    stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}.get(p.kind, "")
    default = "" if p.default is None or stars else (f" = {p.default}" if p.annotation else f"={p.default}")
    return f"{stars}{p.name}" + (f": {p.annotation}" if p.annotation else "") + default


def _call(name: str, parts: list[str], after: str) -> str:
    whole = f"{name}({', '.join(parts)}){after}"
    if len(whole) <= LONG:
        return whole
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){after}"


def _docstring(member: griffe.Object) -> str:
    """Text as it stands; arguments, attributes, results and errors as lists."""
    kinds, out = griffe.DocstringSectionKind, []
    for section in member.docstring.parsed:
        if section.kind is kinds.text:
            out.append(_ticks(section.value))
        elif section.kind is kinds.examples:
            out += [
                f"```python\n{text}\n```" if kind is kinds.examples else _ticks(text) for kind, text in section.value
            ]
        elif section.kind in (kinds.parameters, kinds.attributes):
            out.append("\n".join(f"- `{item.name}`: {_flat(item.description)}" for item in section.value))
        elif section.kind is kinds.returns:
            out.append("Returns: " + " ".join(_flat(item.description) for item in section.value))
        elif section.kind is kinds.raises:
            out.append("\n".join(f"- raises `{item.annotation}`: {_flat(item.description)}" for item in section.value))
        elif section.kind is kinds.admonition:
            out.append(f"{section.title}: {_flat(section.value.description)}")
        else:
            raise ValueError(f"{member.path}: a section of kind {section.kind.value}")
    return "\n\n".join(out)


def _ticks(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text, flags=re.S)


def _flat(text: str) -> str:
    return _ticks(" ".join(text.split()))


if __name__ == "__main__":
    main()
