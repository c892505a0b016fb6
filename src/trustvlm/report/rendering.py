"""Templates as self-contained HTML pages: one style, one script, no other file or host."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import trustvlm
from trustvlm.report.columns import number
from trustvlm.report.wording import counted, percent, shortened

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["environment_of", "render"]


def render(template: str, **content: Any) -> str:
    """Fill a template of this room; what comes from data is escaped.

    Every template finds `style`, `script` and `script_hash`, for a content security policy that
    allows nothing but the page's own script, and `version`.
    """
    from markupsafe import Markup

    style, script = _asset("report.css"), _asset("report.js")
    page: str = (
        _environment()
        .get_template(template)
        .render(
            version=trustvlm.__version__,
            style=Markup(style),  # noqa: S704 -- the package's own file
            script=Markup(script),  # noqa: S704
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
            **content,
        )
    )
    # File names need not be UTF-8: Python marks such bytes with lone surrogates.
    return page.encode("utf-8", "replace").decode("utf-8")


def environment_of(package: str) -> Environment:
    """Return what fills the HTML templates of a package: data is escaped, gaps are errors."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(shortened=shortened)
    environment.globals.update(counted=counted)
    return environment


@cache
def _environment() -> Environment:
    from trustvlm.images.thumbnails import thumbnail

    environment = environment_of("trustvlm.report")
    environment.filters.update(number=number, percent=percent, thumbnail=thumbnail)
    return environment


def _asset(name: str) -> str:
    """Return a file beside the template; its line ends are those that a browser hashes."""
    return resources.files("trustvlm.report").joinpath("templates", name).read_text("utf-8")
