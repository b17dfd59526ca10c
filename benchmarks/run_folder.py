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
