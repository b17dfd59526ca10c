"""Links of pages to files of the repository outside `docs/`: the site carries a copy of each file that a page links to.

A link such as `[results](../benchmarks/results/int8.json)` then works both where the repository is browsed and in the
site, offline. Markdown files become pages, folders become lists of their files, all else is copied as it is.
"""

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

DOCS = "docs/"
COPIES = "repository/"
"""The folder of the site with the copies."""
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#|/)([^)\s#]+)")


def linked_files(pages: Mapping[str, str], root: Path) -> dict[str, Path]:
    """Find what the pages link to outside `docs/`, directly or through another Markdown file.

    Args:
        pages: the text of each page, by its path in the repository.
        root: the repository.

    Returns:
        Files and folders by their paths in the repository. Links to nothing are left for the strict build to report.
    """
    found: dict[str, Path] = {}
    waiting = list(pages.items())
    while waiting:
        page, text = waiting.pop()
        for target in _targets(page, text):
            path = root / target
            if target.startswith((DOCS, "..")) or target in found or not path.exists():
                continue
            found[target] = path
            if path.is_dir():
                found |= {str(below.relative_to(root)): below for below in sorted(path.rglob("*")) if below.is_file()}
            elif path.suffix == ".md":
                waiting.append((target, path.read_text(encoding="utf-8")))
    return found


def relink(text: str, page: str, place: Callable[[str], str]) -> str:
    """Point a page's links at the places that their targets have in the site.

    Args:
        text: the page's Markdown.
        page: its path in the repository.
        place: gives the path in the site's sources for a path in the repository.
    """
    here = posixpath.dirname(place(page))

    def moved(link: re.Match[str]) -> str:
        return posixpath.relpath(place(_resolve(page, link[1])), here or ".")

    return _LINK.sub(moved, text)


def list_files(folder: Path, root: Path) -> str:
    """Write a page that lists a folder's files, as Markdown."""
    below = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    lines = [f"- [{path}]({path})" for path in map(str, below)]
    return f"# {folder.relative_to(root)}\n\n" + "\n".join(lines) + "\n"


def _targets(page: str, text: str) -> Iterator[str]:
    return (_resolve(page, link[1]) for link in _LINK.finditer(text))


def _resolve(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
