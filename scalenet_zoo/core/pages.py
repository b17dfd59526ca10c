"""HTML pages with everything in them, from jinja2 templates: text is escaped, and a name that is missing an error."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup


def render_page(package: str, template: str, **values: Any) -> str:  # noqa: ANN401 - whatever the template names
    """The page of a template, with these values.

    Args:
        package: that the template is a file of.
        template: the file's name.
        **values: by the names that the template has for them.
    """
    from jinja2 import Environment, StrictUndefined

    from scalenet_zoo.core.quantities import format_count

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = format_count
    return environment.from_string(_text(package, template)).render(values)


def read_script(package: str, name: str) -> Markup:
    """A script of a package, to stand in a page as it is."""
    from markupsafe import Markup

    return Markup(_text(package, name))


def script_hash(script: str) -> str:
    """What a page's policy names a script by that stands in it, after `sha256-`."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _text(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
