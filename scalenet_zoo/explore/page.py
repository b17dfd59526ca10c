"""One HTML page that shows what the zoo does on a machine: a chart that can be filtered and clicked, and its table.

    exploration --page.html, page.js, Plotly--> page

The page asks for nothing outside itself: Plotly is in it, and its policy allows the scripts that stand in it alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from scalenet_zoo.core.files import replacing
from scalenet_zoo.core.pages import read_script, render_page, script_hash

EXPLORER = "scalenet-zoo explore"
_HERE = "scalenet_zoo.explore"


def write_explorer(found: Mapping[str, Any], path: Path) -> None:
    """Write the page.

    Args:
        found: an `Exploration` as its `to_dict` gives it.
        path: the file to write.

    Raises:
        OutputError: it cannot be written.
    """
    from plotly.offline import get_plotlyjs

    plotly, script = Markup(get_plotlyjs()), read_script(_HERE, "page.js")
    points = found["points"]
    backends = list(dict.fromkeys(point["backend"] for point in points))
    page = render_page(
        _HERE,
        "page.html",
        title=f"The zoo on {', '.join(backends)}: {found['machine']['cpu']}",
        generator=EXPLORER,
        policy=" ".join(f"'sha256-{script_hash(each)}'" for each in (plotly, script)),
        plotly=plotly,
        script=script,
        data=Markup(_data({"points": points})),
        found=found,
        points=points,
        measured=sum(point["measured"] for point in points),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _data(value: object) -> str:
    """JSON that can stand in a script element, whatever texts are in it."""
    return json.dumps(value, allow_nan=False).replace("<", "\\u003c")
