"""Hooks of the documentation site (.mkdocs.yml): bring the files of the repository that pages link to into the site."""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Files outside docs/ that are pages of the site.
PAGES = {"CHANGELOG.md": "changelog.md", ".github/CONTRIBUTING.md": "contributing.md"}
# The theme loads this from another site, only to make the search work without a server.
SHIM = '<script src="https://unpkg.com/iframe-worker/shim"></script>'
LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)#\s]+)((?:#[^)]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    linked = {path for file in files.documentation_pages() for path in outside(source_of(file.src_uri), file)}
    for path in sorted(linked):
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the places that files have in the site."""
    source, here = source_of(page.file.src_uri), page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        path = resolve(source, match[2])
        if path.startswith("docs/"):
            target = path.removeprefix("docs/")
        elif (ROOT / path).is_file():
            target = PAGES.get(path, f"files/{path}")
        else:
            return match[0]  # a broken link, which mkdocs reports
        return match[1] + os.path.relpath(target, PurePosixPath(here).parent) + match[3]

    return LINK.sub(moved, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    return output.replace(SHIM, "")


def on_post_template(output: str, template_name: str, config: MkDocsConfig) -> str:
    return output.replace(SHIM, "")


def source_of(uri: str) -> str:
    """The path in the repository of a page of the site."""
    return {page: source for source, page in PAGES.items()}.get(uri, f"docs/{uri}")


def resolve(source: str, link: str) -> str:
    """The path in the repository that a link in a file leads to."""
    return os.path.normpath(PurePosixPath(source).parent / link).replace(os.sep, "/")


def outside(source: str, file: File) -> set[str]:
    """Files outside docs/ that a page links to and that are no pages."""
    paths = {resolve(source, link) for _, link, _ in LINK.findall(file.content_string)}
    return {path for path in paths if not path.startswith("docs/") and path not in PAGES and (ROOT / path).is_file()}
