"""An HTML page that shows the zoo's entries on a machine: a chart that can be filtered and clicked, and a table.

    exploration --page.html, page.js, Plotly--> page

The page loads nothing from elsewhere: it contains Plotly, and its content policy allows only the scripts inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalenet_zoo.core.files import replacing
from scalenet_zoo.core.pages import embed_json, plotly_script, read_script, render_page, script_policy

EXPLORER = "scalenet-zoo explore"
_HERE = "scalenet_zoo.explore"


def write_explorer(found: Mapping[str, Any], path: Path) -> None:
    """Write the page.

    Args:
        found: an `Exploration` in the form of its `to_dict`.
        path: the file to write.

    Raises:
        OutputError: the file cannot be written.
    """
    plotly, script = plotly_script(), read_script(_HERE, "page.js")
    points = found["points"]
    backends = list(dict.fromkeys(point["backend"] for point in points))
    page = render_page(
        _HERE,
        "page.html",
        title=f"The zoo on {', '.join(backends)}: {found['machine']['cpu']}",
        generator=EXPLORER,
        policy=script_policy(plotly, script),
        plotly=plotly,
        script=script,
        data=embed_json({"points": points}),
        found=found,
        points=points,
        measured=sum(point["measured"] for point in points),
    )
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
