"""HTML pages: what templates get is escaped, scripts are named by their hashes, and colours have enough contrast."""

import json
import re
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from scalenet_zoo.core.pages import embed_json, plotly_script, render_page, script_policy

ROOT = Path(__file__).parent.parent.parent / "scalenet_zoo"
TEMPLATES = sorted(ROOT.rglob("*.html"))
LEAST_CONTRAST = 4.5
"""Of text, as the Web Content Accessibility Guidelines (level AA) require it."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=10,
)


@given(JSON)
def test_embedded_json_is_the_value_and_ends_no_script(value: object) -> None:
    text = embed_json(value)
    assert json.loads(text) == value
    assert "<" not in text


def test_a_policy_names_scripts_by_their_hashes() -> None:
    policy = script_policy("a()", plotly_script())
    first, second = re.findall(r"'sha256-([^']+)'", policy)
    assert b64decode(first) == sha256(b"a()").digest()
    assert b64decode(second) == sha256(plotly_script().encode()).digest()
    assert script_policy() == ""


def test_a_missing_value_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="title"):
        render_page("scalenet_zoo.search.report", "report.html", generator="x", policy="'none'")


def _luminance(colour: str) -> float:
    """The relative luminance of a colour, #rgb or #rrggbb."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _contrast(a: str, b: str) -> float:
    dark, light = sorted(map(_luminance, (a, b)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_guidelines() -> None:
    assert _contrast("#000", "#ffffff") == pytest.approx(21)
    assert _contrast("#767676", "#fff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("path", [ROOT / "core" / "page.css", *TEMPLATES], ids=lambda path: path.parent.name)
def test_text_can_be_read(path: Path) -> None:
    """Every colour of text against every colour that may be behind it."""
    shared = (ROOT / "core" / "page.css").read_text(encoding="utf-8")
    style = path.read_text(encoding="utf-8")
    backgrounds = set(re.findall(r"background: (#[0-9a-f]{3,6})", shared + style))
    colours = set(re.findall(r"(?<![\w-])color: (#[0-9a-f]{3,6})", shared + style))
    assert "#fff" in backgrounds
    assert colours
    poor = [(a, b) for a in colours for b in backgrounds if _contrast(a, b) < LEAST_CONTRAST]
    assert poor == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.parent.name)
def test_templates_share_one_style_and_have_a_policy(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "{{ shared_style }}" in text
    assert '<html lang="en">' in text
    assert "default-src 'none'" in text
    assert "unsafe-eval" not in text
