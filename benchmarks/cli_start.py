"""Start-up time of the command line against `python -c "import typer"`, and a check that torch is not imported.

python -m benchmarks.cli_start: whole processes are timed; ratios should be below 3.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.interleave import interleave, ratio, record

COMMAND = Path(sys.executable).with_name("scalenet-zoo")


def process(*arguments: str) -> Callable[[], object]:
    return lambda: subprocess.run(arguments, check=True, capture_output=True)


def main() -> None:
    measured: dict[str, object] = {}
    for flag in ("--help", "--version"):
        ours, peer = process(str(COMMAND), flag), process(sys.executable, "-c", "import typer")
        measured[flag] = ratio(*interleave(ours, peer, 40))
    probe = "import sys, scalenet_zoo.cli; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    measured["torch_imported"] = result.stdout.strip() == "True"
    record("cli_start", measured)


if __name__ == "__main__":
    main()
