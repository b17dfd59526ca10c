"""Quantities as people write them: `600M`, `1.2G`, `4ms`."""

import math
import operator
import re
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from typing import SupportsIndex

from scalenet_zoo.core.errors import QuantityError

_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT])", re.IGNORECASE)
_LATENCY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s)", re.IGNORECASE)
_MILLISECONDS = {"us": Decimal("0.001"), "ms": Decimal(1), "s": Decimal(1000)}
_FACTORS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_count(text: str, what: str) -> int:
    """Read a number of MACs or parameters: `600M` is 600,000,000.

    The unit is required: a number without one would be a tiny budget.

    Args:
        text: a positive decimal number followed by K, M, G or T (powers of 1000).
        what: the flag or argument, for the message.

    Raises:
        QuantityError: `text` is not of that form, or is zero.
    """
    match = _COUNT.fullmatch(text.strip())
    value = int(Decimal(match[1]) * _FACTORS[match[2].upper()]) if match else 0
    if value < 1:
        raise QuantityError(
            f"{what}: found {text!r}, expected a positive number with a unit K, M, G or T, such as 600M"
        )
    return value


def parse_ms(text: str, what: str) -> float:
    """Read a latency in milliseconds: `4ms`, `800us` and `0.1s` are 4, 0.8 and 100.

    Args:
        text: a positive decimal number followed by us, ms or s.
        what: the flag or argument, for the message.

    Raises:
        QuantityError: `text` is not of that form, or is zero.
    """
    match = _LATENCY.fullmatch(text.strip())
    value = float(Decimal(match[1]) * _MILLISECONDS[match[2].lower()]) if match else 0.0
    if not 0.0 < value < math.inf:
        raise QuantityError(f"{what}: found {text!r}, expected a positive number with a unit us, ms or s, such as 4ms")
    return value


def whole_count(value: float, what: str) -> int:
    """Truncate a number of MACs or parameters to a whole number.

    Raises:
        QuantityError: `value` is infinite or not a number.
    """
    if not math.isfinite(value):
        raise QuantityError(f"{what}: found {value}, expected a finite number")
    return int(value)


def whole_number(value: object, low: int, high: int, what: str) -> int:
    """Check that a value is one of Python's or NumPy's whole numbers, from `low` to `high`.

    Raises:
        QuantityError: it is not whole, or out of range.
    """
    if not isinstance(value, SupportsIndex) or not low <= operator.index(value) <= high:
        raise QuantityError(f"{what}: found {value!r}, expected a whole number from {low} to {high}")
    return operator.index(value)


def format_count(value: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """Write a count with up to four significant digits and a unit: 385.8M, 1.62G."""
    for unit, factor in reversed(_FACTORS.items()):
        if value >= factor:
            return f"{_four_digits(value / factor, rounding)}{unit}"
    return _four_digits(value, rounding)


def format_ms(value: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """Write milliseconds with up to four significant digits: 3.917ms."""
    return f"{_four_digits(value, rounding)}ms"


def format_range(low: float, high: float, write: Callable[[float, str], str] = format_count) -> str:
    """Write a range, with the ends rounded inwards so that both lie within it."""
    return f"{write(low, ROUND_CEILING)} to {write(high, ROUND_FLOOR)}"


def _four_digits(value: float, rounding: str) -> str:
    return f"{Context(prec=4, rounding=rounding).create_decimal(Decimal(value)).normalize():f}"


def format_duration(seconds: float) -> str:
    """Write seconds as 0:07 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
