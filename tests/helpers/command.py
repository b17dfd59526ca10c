"""The command line, run in this process."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from scalenet_zoo.cli import main
from tests.helpers.random_states import same_random_states

COMMAND = Path(sys.executable).with_name("scalenet-zoo")


class Run:
    """Runs the command line in this process. No command may change what global random generators draw next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["scalenet-zoo", *map(str, arguments)])
        with same_random_states(), pytest.raises(SystemExit) as caught:
            main()
        printed = self.capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    def json(self, *arguments: object) -> Any:
        code, out, err = self(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    def error(self, *arguments: object) -> tuple[int, str]:
        code, out, err = self(*arguments)
        assert code != 0
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return code, err.removeprefix("error: ").rstrip()
