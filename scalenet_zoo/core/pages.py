"""Self-contained HTML pages from jinja2 templates. Text is escaped, and a missing name is an error.

All pages share `page.css`, which a template includes as `{{ shared_style }}`. Scripts stand inside the page, and its
content policy names them by their hashes, so no other script can run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup


def render_page(package: str, template: str, **values: Any) -> str:  # noqa: ANN401 - whatever the template names
    """Render a template with these values.

    Args:
        package: the package that contains the template.
        template: the name of the template's file.
        **values: the values, by their names in the template.
    """
    from jinja2 import Environment, StrictUndefined

    from scalenet_zoo.core.quantities import format_count

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = format_count
    style = read_script("scalenet_zoo.core", "page.css")
    return environment.from_string(_text(package, template)).render(values, shared_style=style)


def read_script(package: str, name: str) -> Markup:
    """Read a script or style sheet of a package, to stand in a page unescaped."""
    from markupsafe import Markup

    return Markup(_text(package, name))


def plotly_script() -> Markup:
    """Return the script of Plotly, which draws interactive charts (some 5 MB)."""
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def embed_json(value: object) -> Markup:
    """Write a value as JSON that is safe inside a script element, whatever text it contains."""
    from markupsafe import Markup

    return Markup(json.dumps(value, allow_nan=False).replace("<", "\\u003c"))


def script_policy(*scripts: str) -> str:
    """Return the sources for `script-src` in a page's content policy: the hashes of these scripts."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    return " ".join(f"'sha256-{each}'" for each in hashes)


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
