"""The precisions in which networks are compared on a back end, and how a user names them."""

from __future__ import annotations

from collections.abc import Sequence

from scalenet_zoo.core.backends import Precision, find_backend
from scalenet_zoo.latency.precisions import QUANTISED_ON, check_precision

ANY = "any"
"""Stands for all precisions that may be fast on a back end."""
ORDER: tuple[Precision, ...] = ("fp32", "fp16", "int8")
"""From the most preferred on: if a network meets a budget in several precisions, the first of them is taken."""


def check_precisions(asked: str | Sequence[str], backend: str) -> None:
    """Check that these precisions exist, and that networks can be timed in them on a back end.

    This is quick: nothing is imported or measured.

    Raises:
        UsageError: there is no such precision, or networks are not timed in it on the back end.
    """
    for precision in _listed(asked):
        if precision != ANY:
            check_precision(precision, backend)


def precisions_on(asked: str | Sequence[str], backend: str) -> tuple[Precision, ...]:
    """List the requested precisions in `ORDER`.

    `any` stands for fp32, for int8 where networks are quantised for the back end, and for fp16 on GPUs.

    Raises:
        UsageError: as in `check_precisions`.
        BackendError: there is no such back end.
    """
    check_precisions(asked, backend)
    listed = _listed(asked)
    wanted = {precision for precision in listed if precision != ANY}
    if ANY in listed:
        wanted.add("fp32")
        if backend in QUANTISED_ON:
            wanted.add("int8")
        elif find_backend(backend).about != "CPU":
            wanted.add("fp16")
    return tuple(precision for precision in ORDER if precision in wanted)


def _listed(asked: str | Sequence[str]) -> Sequence[str]:
    return (asked,) if isinstance(asked, str) else asked
