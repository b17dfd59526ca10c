"""Helpers of long runs: progress, files in their folder, and copies of the files worth keeping."""

import json
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalenet_zoo.core.files import replacing
from scalenet_zoo.search.report.page import write_report

TELL_EVERY = 30
"""Seconds between progress messages."""
SCRIPT = re.compile(r"\s*<script.*?</script>", re.DOTALL)
"""A script in a page."""


@dataclass
class Told:
    """Prints what is being done, twice a minute."""

    at: float = field(default_factory=time.monotonic)

    def __call__(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self.at > TELL_EVERY:
            self.at = time.monotonic()
            print(f"{what} ({done} of {total})", file=sys.stderr, flush=True)


def do_parts(study: Any, parts: Sequence[str], chosen: Sequence[str]) -> None:
    """Prepare the data of a study, and do those of its parts that are chosen: methods with these names, in order."""
    study.data()
    for part in parts:
        if part in chosen:
            print(part, file=sys.stderr, flush=True)
            getattr(study, part)()


def write(path: Path, values: dict[str, Any]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def keep(file: Path, target: Path, names: Mapping[str, str]) -> None:
    """Copy a file; in text files, local paths are replaced by the given `names`.

    A report's page is copied without its scripts. It then shows pictures instead of charts, at a tenth of the size.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".png":
        shutil.copy(file, target)
        return
    text = file.read_text(encoding="utf-8")
    for path, name in names.items():
        text = text.replace(path, name)
    if file.suffix == ".html":
        text = SCRIPT.sub("", text)
    target.write_text(text, encoding="utf-8")


def keep_page(search: Path, ledger: str, results: Path, run: Path) -> None:
    """Keep the page of a search beside the results of its study, under the same name, once the search has begun.

    Args:
        search: the folder of the search, in `run`.
        ledger: the name of its file of results, such as joint.json.
        results: the file of the study's results.
        run: the folder of the study.
    """
    if (search / "search" / ledger).exists():
        keep(write_report(search), results.with_suffix(".html"), {str(run): "RUN"})
