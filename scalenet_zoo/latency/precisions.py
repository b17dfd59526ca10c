"""The precisions in which each back end can time a network; separate from `runners.py`, which needs torch."""

from __future__ import annotations

from typing import cast, get_args

from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.core.quoting import quoted

PRECISIONS: tuple[str, ...] = get_args(Precision)
QUANTISED_ON = ("ort-cpu", "openvino")
"""Back ends for which a network can be quantised to time it; the others run int8 only from exported files."""


def check_precision(precision: str, backend: str) -> Precision:
    """Check that a network can be timed in a precision on a back end; this does not check that the back end is here.

    Raises:
        UsageError: there is no such precision, or it is int8 and the back end is not in `QUANTISED_ON`.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"`precision`: found {quoted(precision)}, expected {', '.join(PRECISIONS[:-1])} or int8")
    if precision == "int8" and backend not in QUANTISED_ON:
        raise UsageError(
            f"`precision`: found int8 for a network on {backend}, expected it on {' or '.join(QUANTISED_ON)}"
        )
    return cast("Precision", precision)
