"""The built site: strict, offline, whole links, text alternatives, contrast, and no page wider than a telephone."""

import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import yaml

import scalenet_zoo
from tests.helpers.docs import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
READ = (
    "index.html",
    "zoo.html",
    "evidence.html",
    "reference/cli.html",
    "reference/python.html",
    "troubleshooting.html",
)


def build(root: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the site is made of, so that nothing is written to the repository."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("docs", "tools"):
        shutil.copytree(ROOT / name, folder / name)
    for path in (*ROOT.glob("*.md"), ROOT / "mkdocs.yml", ROOT / "LICENSE"):
        shutil.copy(path, folder)
    for name in ("benchmarks", "scalenet_zoo", "export", "searched_archs", "tests"):
        (folder / name).symlink_to(ROOT / name)
    house = folder / "build" / "house" / "scalenet_zoo"
    house.mkdir(parents=True)
    for path in (*(ROOT / "scalenet_zoo").iterdir(), ROOT / "export", ROOT / "searched_archs"):
        (house / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def site(copy: Path) -> Path:
    built = build(copy, copy / "site")
    assert built.returncode == 0, built.stdout + built.stderr
    assert "WARNING" not in built.stderr
    return copy / "site"


def test_the_site_has_every_page_and_every_public_name(site: Path) -> None:
    nav = re.findall(r"[\w/]+\.md", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(nav) >= 17
    assert all((site / name).with_suffix(".html").exists() for name in nav)
    reference = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in scalenet_zoo.__all__:
        assert name.startswith("__") or f'id="scalenet_zoo.{name}"' in reference
    assert "&lt;!-- generated" not in reference
    assert "tf_efficientnet_lite0" in (site / "zoo.html").read_text(encoding="utf-8")


def test_links_lead_to_files_and_anchors_that_there_are(site: Path) -> None:
    ids: dict[Path, set[str]] = {}
    for page in (path for path in site.rglob("*.html") if "benchmarks" not in path.parts):
        for link in re.findall(r'href="([^"]+)"', page.read_text(encoding="utf-8")):
            path, _, anchor = html.unescape(link).partition("#")
            if re.match(r"\w+:", path) or path.startswith("/") or page.name == "404.html":
                continue
            target = (page.parent / path).resolve() if path else page.resolve()
            assert target.exists(), f"{page.name}: {link}"
            if anchor and target.suffix == ".html" and not anchor.startswith("__"):
                if target not in ids:
                    ids[target] = set(re.findall(r'id="([^"]+)"', target.read_text(encoding="utf-8")))
                assert html.unescape(anchor) in ids[target], f"{page.name}: {link}"


def test_pages_ask_for_nothing_from_elsewhere_and_pictures_have_words(site: Path) -> None:
    for page in (path for path in site.rglob("*.html") if "benchmarks" not in path.parts):
        text = page.read_text(encoding="utf-8")
        assert '<html lang="en"' in text
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\bsrc="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]*rel="(?:stylesheet|preload|icon|preconnect)"[^>]*href="([^"]+)"', text)
        assert not [address for address in loaded if re.match(r"(https?:)?//", address)], page.name
        assert all(re.search(r'\balt="[^"]+"', picture) for picture in re.findall(r"<img[^>]*>", text)), page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import ['\"]http", sheet.read_text(encoding="utf-8")), (
            sheet.name
        )


@pytest.mark.parametrize(
    ("page", "line", "told"),
    [
        ("train.md", "[gone](nowhere.md)", "nowhere.md"),
        ("train.md", "[gone](search.md#nowhere)", "#nowhere"),
        ("train.md", "[gone](../benchmarks/results/nowhere.json)", "nowhere.json"),
        ("zoo.md", "<!-- generated: nothing -->", "found no such page"),
        ("reference/python.md", "::: scalenet_zoo.nothing", "scalenet_zoo.nothing"),
    ],
)
@pytest.mark.slow
def test_a_broken_page_fails_the_build(copy: Path, page: str, line: str, told: str, tmp_path: Path) -> None:
    path = copy / "docs" / page
    text = path.read_text(encoding="utf-8")
    path.write_text(f"{text}\n{line}\n", encoding="utf-8")
    try:
        built = build(copy, tmp_path / "site")
    finally:
        path.write_text(text, encoding="utf-8")
    assert built.returncode != 0
    assert told in built.stdout + built.stderr


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served: browsers search only what does not come from files."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def tab() -> Iterator["Tab"]:
    if not BROWSER:
        pytest.skip("no Chromium here: chromium, chromium-browser or google-chrome on the path")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        opened = browser.new_page()
        yield opened
        browser.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", READ)
def test_a_page_fits_a_telephone_and_can_be_read(name: str, address: str, tab: "Tab") -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.set_viewport_size({"width": 400, "height": 800})
    for scheme, preferred in (("default", "light"), ("slate", "dark")):
        tab.emulate_media(color_scheme=preferred)  # type: ignore[arg-type]
        tab.goto(address + name)
        assert tab.evaluate("document.body.getAttribute('data-md-color-scheme')") == scheme
        assert tab.evaluate("document.documentElement.scrollWidth") <= 400
        contrast, where = tab.evaluate(LEAST_CONTRAST)
        assert contrast >= 4.5, f"{scheme}: {where}"
    assert asked
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


@pytest.mark.slow
def test_the_search_finds_a_page(address: str, tab: "Tab") -> None:
    tab.set_viewport_size({"width": 1280, "height": 900})
    tab.goto(address + "index.html")
    tab.click("[data-md-component=search-query]")
    tab.keyboard.type("super-supernet")
    tab.locator(".md-search a", has_text="super-supernet").first.wait_for(timeout=10_000)


LEAST_CONTRAST = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const shine = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map(v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const over = (top, below) => {
    const alpha = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(i => top[i] * alpha + below[i] * (1 - alpha));
  };
  const behind = element => {
    const stack = [];
    for (let at = element; at; at = at.parentElement) stack.push(numbers(getComputedStyle(at).backgroundColor));
    return stack.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  let least = [21, ''];
  const texts = '.md-content :is(p, li, td, th, code, a:not(.headerlink), h1, h2, h3, span)';
  for (const element of document.querySelectorAll(texts)) {
    const text = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!text || !element.offsetParent) continue;
    const below = behind(element), ink = over(numbers(getComputedStyle(element).color), below);
    const [dark, light] = [shine(ink), shine(below)].sort((a, b) => a - b);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < least[0]) least = [contrast, `${element.tagName} ${element.className}: ${element.textContent}`];
  }
  return least;
}"""
"""The least contrast between a text and its background on a page, by WCAG 2, and which text it is."""
