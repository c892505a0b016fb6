"""Small pieces of the sentences in tables, reports and errors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

# Control characters, line separators, marks that turn the direction of writing, lone surrogates.
UNSAFE = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    r"""Write out what a terminal would obey instead of showing it; `keep` names what stays.

    Names of files can hold anything but a slash. The escapes are those of JSON where JSON has any.

    Examples
    --------
    >>> print(printable("red\x1b[31m.jpg"), printable("two\nlines.jpg"), printable("gpj.\u202etxt"))
    red\x1b[31m.jpg two\nlines.jpg gpj.\u202etxt
    """

    def escaped(match: re.Match[str]) -> str:
        sign = match[0]
        if sign in keep:
            return sign
        short = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(sign)
        return short or (f"\\x{ord(sign):02x}" if sign < " " else f"\\u{ord(sign):04x}")

    return UNSAFE.sub(escaped, text)


_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://[^\s'\"<>]+")
_USER = re.compile(r"://[^/?#@]*:[^/?#@]*@")
# What signs a URL of S3, Google Cloud Storage, Azure and CloudFront, and what else lets one in.
_SIGNED = re.compile(
    r"(x-(amz|goog)-.*|signature|awsaccesskeyid|googleaccessid|key-pair-id|policy|sig)", re.I
)
_SECRET = re.compile(r"(.*[-_])?(token|auth|api_?key|key|password|secret)", re.I)


def without_credentials(text: str) -> str:
    """Leave out of the URLs in a text what lets its readers in: passwords and signatures.

    Examples
    --------
    >>> without_credentials("https://me:word@host/a.jpg?X-Amz-Date=1&X-Amz-Signature=2 is missing")
    'https://host/a.jpg is missing'
    >>> without_credentials("https://host/a.jpg?id=1&access_token=2")
    'https://host/a.jpg?id=1'
    >>> without_credentials("s3://bucket/a?key=1.jpg")
    's3://bucket/a?key=1.jpg'
    """
    return _URL.sub(_without_credentials, text) if "://" in text else text


def _without_credentials(match: re.Match[str]) -> str:
    url = _USER.sub("://", match[0])
    before, mark, query = url.partition("?")
    # Keys of object stores may have the sign in their names.
    if not mark or not match[1].lower().startswith("http"):
        return url
    query, _, fragment = query.partition("#")
    parameters = query.split("&")
    names = [parameter.partition("=")[0] for parameter in parameters]
    kept = [p for p, name in zip(parameters, names, strict=True) if not _SECRET.fullmatch(name)]
    if any(map(_SIGNED.fullmatch, names)):
        kept = []
    return before + ("?" + "&".join(kept) if kept else "") + (f"#{fragment}" if fragment else "")


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


def short_percent(fraction: float, *, towards: str = "nearest") -> str:
    """Write a fraction in percent, with a decimal only where it is not whole.

    `towards` is `nearest`, or `up` or `down` for bounds, which must not gain by the rounding.

    Examples
    --------
    >>> short_percent(0.95), short_percent(0.7123), short_percent(0.0009)
    ('95 %', '71.2 %', '0.09 %')
    >>> short_percent(0.0133, towards="up")
    '1.4 %'
    """
    digits = 1 if fraction >= 0.001 or fraction == 0 else 4
    # What is whole but for the rounding of floating point stays so.
    units = round(100 * fraction * 10**digits, 6)
    whole = {"nearest": round(units), "up": math.ceil(units), "down": math.floor(units)}
    return f"{whole[towards] / 10**digits:g} %"


def exact_number(value: float) -> str:
    """Write a number with as few digits as it takes to read the same number again.

    Thresholds are written so: typed in again, they accept the same images.

    Examples
    --------
    >>> exact_number(0.0), exact_number(0.1), exact_number(1 / 3)
    ('0', '0.1', '0.3333333333333333')
    """
    texts = (f"{value:.{digits}g}" for digits in range(6, 18))
    return next((text for text in texts if float(text) == value), "nan")


def number_beside(value: float, threshold: float, form: str = ".4g") -> str:
    """Write a number as `form` says, or with more digits where it would change sides.

    What is written lies below, at or above the threshold as the number itself does.

    Examples
    --------
    >>> number_beside(1.5, 1.2), number_beside(1.20004, 1.2), number_beside(1.19996, 1.2)
    ('1.5', '1.20004', '1.19996')
    """
    value, threshold = float(value), float(threshold)

    def side(number: float) -> int:
        return (number > threshold) - (number < threshold)

    # 17 digits are the number itself.
    texts = (f"{value:{form}}", *(f"{value:.{digits}g}" for digits in range(5, 18)))
    return next(text for text in texts if side(float(text)) == side(value))


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


def main_clauses(text: str, length: int = 120) -> str:
    """Leave out the last clauses of a long sentence, which "; " joins; the first stays whole.

    Examples
    --------
    >>> main_clauses("text and examples agree; the text alone is unsure", 40)
    'text and examples agree …'
    >>> main_clauses("short; whole", 40), main_clauses("one clause too long", 5)
    ('short; whole', 'one clause too long')
    """
    end = len(text)
    while end > length and (cut := text.rfind("; ", 0, end)) > 0:
        end = cut
    return text if end == len(text) else f"{text[:end]} …"


def join_names(names: Sequence[str], last: str = "and") -> str:
    """Join names with commas, and a word before the last.

    Examples
    --------
    >>> join_names(["1", "2", "16"]), join_names(["a", "b"], "or"), join_names(["a"])
    ('1, 2 and 16', 'a or b', 'a')
    """
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def did_you_mean(name: str, names: Iterable[str], n: int = 3) -> str:
    """Write a question that names what is spelt most like `name`; empty where nothing is.

    Examples
    --------
    >>> did_you_mean("trustvml", ["msp", "trustvlm"])
    'did you mean trustvlm?'
    >>> did_you_mean("x", ["msp"])
    ''
    """
    near = get_close_matches(name, list(names), n=n)
    return f"did you mean {join_names(near, 'or')}?" if near else ""
