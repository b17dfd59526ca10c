"""Quantities as people write them: `600M`, `1.2G`."""

import re
from decimal import Decimal

from scalenet_zoo.errors import QuantityError

_COUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT])", re.IGNORECASE)
_FACTORS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def parse_count(text: str, what: str) -> int:
    """Read a number of MACs or parameters: `600M` is 600,000,000.

    The unit is required, so that a forgotten one cannot pass for a tiny budget.

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


def format_count(value: float) -> str:
    """Write a count with three or four significant digits and a unit: 385.8M, 1.62G."""
    for unit, factor in reversed(_FACTORS.items()):
        if value >= factor:
            return f"{value / factor:.4g}{unit}"
    return f"{value:g}"
