"""One HTML page that shows what the zoo does on a machine: a chart that can be filtered and clicked, and its table.

    exploration --page.html, page.js, Plotly--> page

The page asks for nothing outside itself: Plotly is in it, and its policy allows the scripts that stand in it alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from scalenet_zoo.core.files import replacing
from scalenet_zoo.core.quantities import format_count

EXPLORER = "scalenet-zoo explore"


def write_explorer(found: Mapping[str, Any], path: Path) -> None:
    """Write the page.

    Args:
        found: an `Exploration` as its `to_dict` gives it.
        path: the file to write.

    Raises:
        OutputError: it cannot be written.
    """
    from plotly.offline import get_plotlyjs

    here = files("scalenet_zoo.explore")
    scripts = [get_plotlyjs(), here.joinpath("page.js").read_text(encoding="utf-8")]
    points = found["points"]
    backends = list(dict.fromkeys(point["backend"] for point in points))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = format_count
    page = environment.from_string(here.joinpath("page.html").read_text(encoding="utf-8")).render(
        title=f"The zoo on {', '.join(backends)}: {found['machine']['cpu']}",
        generator=EXPLORER,
        policy=" ".join(f"'sha256-{_digest(script)}'" for script in scripts),
        plotly=Markup(scripts[0]),
        script=Markup(scripts[1]),
        data=Markup(_data({"points": points})),
        found=found,
        points=points,
        measured=sum(point["measured"] for point in points),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _digest(script: str) -> str:
    """What a page's policy names a script by that stands in it."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _data(value: object) -> str:
    """JSON that can stand in a script element, whatever texts are in it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
