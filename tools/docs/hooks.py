"""What `mkdocs build` calls: it fills in the generated tables and carries the repository's files that pages link to."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.docs.cli_page import cli_page
from tools.docs.formats_page import formats_page
from tools.docs.repository import COPIES, DOCS, linked_files, list_files, relink
from tools.docs.zoo_page import zoo_page

ROOT = Path(__file__).parents[2]
GENERATED = {"cli": cli_page, "formats": formats_page, "zoo": zoo_page}
_PLACE = re.compile(r"<!-- generated: (\w+) -->")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of the repository that pages link to."""
    pages = {DOCS + file.src_uri: file.content_string for file in files.documentation_pages()}
    for name, path in linked_files(pages, ROOT).items():
        if path.is_dir():
            text = list_files(path, ROOT)
            files.append(File.generated(config, f"{COPIES}{name}/index.md", content=text))
        elif path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            files.append(File.generated(config, COPIES + name, content=text))
        else:
            files.append(File.generated(config, COPIES + name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is generated, and point links to the repository's files at their copies."""
    uri = page.file.src_uri
    here = uri.removeprefix(COPIES) if uri.startswith(COPIES) else DOCS + uri

    def place(path: str) -> str:
        if path.startswith(DOCS):
            return path.removeprefix(DOCS)
        return f"{COPIES}{path}/index.md" if (ROOT / path).is_dir() else COPIES + path

    is_listing = uri.startswith(COPIES) and uri.endswith("/index.md")  # its links are right as they are
    return _PLACE.sub(_generate, markdown if is_listing else relink(markdown, here, place))


def _generate(found: re.Match[str]) -> str:
    if found[1] not in GENERATED:
        raise PluginError(f"<!-- generated: {found[1]} -->: found no such page, expected {', '.join(GENERATED)}")
    return GENERATED[found[1]]()
