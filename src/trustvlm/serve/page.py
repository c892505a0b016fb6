"""The page on which people review: static files of this package, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

__all__ = ["files", "router"]

router = APIRouter()
_FOLDER = Path(__file__).with_name("static")


@router.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(_FOLDER / "index.html", media_type="text/html; charset=utf-8")


def files() -> StaticFiles:
    """Return an application that serves the page's scripts and styles."""
    return StaticFiles(directory=_FOLDER)
