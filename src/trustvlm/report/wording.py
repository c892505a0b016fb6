"""Small pieces of the sentences in tables and reports."""

from __future__ import annotations

import math

__all__ = ["counted", "percent", "shortened"]


def counted(n: int, noun: str, plural: str = "") -> str:
    """Write a count with its noun, thousands set apart by commas.

    Examples
    --------
    >>> counted(1, "image"), counted(2, "class", "classes"), counted(12734, "image")
    ('1 image', '2 classes', '12,734 images')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


def percent(fraction: float, digits: int = 1) -> str:
    r"""Write a fraction in percent; a rounded 100 or 0 is written only where it is exact.

    Examples
    --------
    >>> percent(0.97123), percent(1.0), percent(0.99999), percent(0.00001)
    ('97.1\xa0%', '100\xa0%', 'over 99.9\xa0%', 'under 0.1\xa0%')
    >>> percent(float("nan"))
    'undefined'
    """
    if math.isnan(fraction):
        return "undefined"
    value, smallest = 100 * fraction, 10.0**-digits
    if value in (0.0, 100.0):
        text = f"{value:.0f}"
    elif value < smallest / 2:
        text = f"under {smallest:.{digits}f}"
    elif value > 100 - smallest / 2:
        text = f"over {100 - smallest:.{digits}f}"
    else:
        text = f"{value:.{digits}f}"
    return f"{text}\N{NO-BREAK SPACE}%"


def shortened(text: str, length: int = 120) -> str:
    """Cut the middle out of a long text.

    Examples
    --------
    >>> shortened("a long name of a file", 11)
    'a lon… file'
    """
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"
