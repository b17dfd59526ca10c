"""In which precisions a network is timed, and on which back ends; apart from `runners.py`, which needs torch."""

from __future__ import annotations

from typing import cast, get_args

from scalenet_zoo.core.backends import Precision
from scalenet_zoo.core.errors import UsageError
from scalenet_zoo.core.quoting import quoted

PRECISIONS: tuple[str, ...] = get_args(Precision)
QUANTISED_ON = ("ort-cpu", "openvino")
"""Back ends that a network is quantised for, to be timed; others run int8 from exported files alone."""


def check_precision(precision: str, backend: str) -> Precision:
    """See that a network can be timed in a precision on a back end, whether or not that can run here; takes no time.

    Raises:
        UsageError: there is no such precision, or it is int8 where networks are not quantised.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"`precision`: found {quoted(precision)}, expected {', '.join(PRECISIONS[:-1])} or int8")
    if precision == "int8" and backend not in QUANTISED_ON:
        raise UsageError(
            f"`precision`: found int8 for a network on {backend}, expected it on {' or '.join(QUANTISED_ON)}"
        )
    return cast("Precision", precision)
