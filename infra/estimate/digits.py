"""Numbers as people write them, with all the digits that a reader needs to compute what follows from them."""

from __future__ import annotations

__all__ = ["digits"]


def digits(value: float, num: int = 4) -> str:
    """A number with its thousands separated.

    Args:
        value: The number.
        num: Digits that count; whole numbers, and those of more digits, are written to the last one before the point.
    """
    if float(value).is_integer() or abs(value) >= 10 ** (num - 1):
        return f"{value:,.0f}"
    return f"{value:,.{num}g}"
