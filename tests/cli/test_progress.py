"""Progress: one line in a terminal of 80 columns, which never wraps; a few plain lines elsewhere."""

import re
import sys

import pytest

from scalenet_zoo.cli.progress import Pace, progress_bar
from scalenet_zoo.cli.train import _print_epoch
from scalenet_zoo.training.trainer import EpochReport


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_long_text_fits_one_line_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with progress_bar() as advance:
        for done in (0, 40):
            clock.now += 10
            advance("a very long description " * 6, done, 160)
    out, err = capsys.readouterr()
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", err))
    (last,) = {line for line in lines if "25%" in line}
    assert out == ""
    assert len(last.rstrip()) <= 80
    assert last.startswith("a very long description a very")
    assert "…" in last
    assert last.rstrip().endswith("25% 0:30 left")
    assert max(map(len, lines)) <= 80


def test_plain_lines_are_few_and_say_what_is_left(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with progress_bar() as advance:
        for done in range(101):
            advance("training", done, 100)
            clock.now += 1
    assert capsys.readouterr() == (
        "",
        "training: 30 of 100, 1:10 left\ntraining: 60 of 100, 0:40 left\ntraining: 90 of 100, 0:10 left\n",
    )


def test_work_that_is_not_shown_prints_nothing(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with progress_bar(shown=False) as advance:
        for done in range(100):
            clock.now += 1
            advance("training", done, 100)
    assert capsys.readouterr() == ("", "")


def test_the_time_left_of_resumed_work_counts_from_where_it_resumed(clock: Clock) -> None:
    pace = Pace()
    assert pace.left(80, 100) is None
    clock.now += 5
    assert pace.left(90, 100) == pytest.approx(5)
    assert pace.left(1, 7) is None  # other work


@pytest.mark.parametrize("epochs", [15, 300])
def test_the_line_of_an_epoch_fits_80_columns(capsys: pytest.CaptureFixture[str], epochs: int) -> None:
    report = EpochReport(epochs, epochs, 0.23456, "top1", 0.94172, 0.95, 1.2345e-05, 10203.4)
    _print_epoch(report)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (f"epoch {epochs}/{epochs}  loss 0.235  top1 0.9417  best 0.9500  lr 1.2e-05  10,203 images/s\n")
    assert len(err.rstrip("\n")) <= 80


def test_an_epoch_that_is_not_evaluated_has_no_metric(capsys: pytest.CaptureFixture[str]) -> None:
    _print_epoch(EpochReport(3, 15, 0.5, "top1", None, None, 0.1, None))
    assert capsys.readouterr().err == "epoch  3/15  loss 0.5  lr 0.1\n"
