"""The command line in a real pseudo-terminal."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from scalenet_zoo.cli import main

WIDTH = 80


class Terminal:
    """Runs the command line in this process, with a pseudo-terminal as its standard output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, width: int = WIDTH) -> None:
        self.monkeypatch, self.width = monkeypatch, width
        for name in ("COLUMNS", "LINES", "NO_COLOR", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")

    def __call__(self, *arguments: object) -> list[str]:
        """Run a command that succeeds, and return the lines that it prints, without the terminal's codes."""
        self.monkeypatch.setattr(sys, "argv", ["scalenet-zoo", *map(str, arguments)])
        printed = bytearray()
        with self._terminal(printed), pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code, printed.decode()
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())
        return plain.replace("\r\n", "\n").splitlines()

    @contextmanager
    def _terminal(self, printed: bytearray) -> Iterator[None]:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, self.width, 0, 0))

        def read() -> None:
            while True:
                try:
                    block = os.read(master, 65536)
                except OSError:  # Linux: the last process closed the other end
                    return
                if not block:
                    return
                printed.extend(block)

        reader = Thread(target=read)
        reader.start()
        kept = [os.dup(number) for number in (0, 1)]
        sys.stdout.flush()
        for number in (0, 1):
            os.dup2(slave, number)
        try:
            with os.fdopen(slave, "w", encoding="utf-8") as stream, self.monkeypatch.context() as patched:
                patched.setattr(sys, "stdout", stream)
                yield
        finally:
            for number, old in enumerate(kept):
                os.dup2(old, number)
                os.close(old)
            reader.join()
            os.close(master)
