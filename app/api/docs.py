"""/docs and /redoc with assets of our own: no reader's browser tells a third party what it reads here."""

from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, FastAPI
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

router = APIRouter(include_in_schema=False)

ASSETS = "/docs/assets"
PAGES = Path(__file__).parent / "pages"
# Whatever the bundled scripts would fetch from elsewhere, the browser refuses, and every script that stands in a page.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'{}; img-src 'self' data:; worker-src blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# ReDoc adds style elements while it runs: empty ones, which it fills rule by rule, and one of its scroll bars. By their
# hashes; `tests/system/test_playground_page.py` sees in a browser whether there are others.
REDOC_STYLES = (
    " 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' 'sha256-QMIg+bpjm3JdElJ388KYke01izlUW0UoNOeKjpMxdgc='"
)
# Kept, and asked for each time.
_KEPT = {"Cache-Control": "no-cache"}


def _file(name: str, media_type: str, **headers: str) -> Response:
    return Response((PAGES / name).read_bytes(), media_type=media_type, headers=_KEPT | headers)


def _page(name: str, styles: str = "") -> Response:
    policies = {"Content-Security-Policy": POLICY.format(styles), "Cross-Origin-Opener-Policy": "same-origin"}
    return _file(name, "text/html", **policies)


@router.get("/docs")
async def swagger() -> Response:
    """The API, to try."""
    return _page("swagger.html")


@router.get("/redoc")
async def redoc() -> Response:
    """The API, to read."""
    return _page("redoc.html", REDOC_STYLES)


@router.get("/docs/swagger.js")
async def swagger_script() -> Response:
    """What begins the first of them."""
    return _file("swagger.js", "text/javascript")


@router.get("/docs/redoc.css")
async def redoc_style() -> Response:
    """How the second looks until its script runs."""
    return _file("redoc.css", "text/css")


class _Assets(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        answer = await super().get_response(path, scope)
        answer.headers.update(_KEPT)
        return answer


def mount_assets(app: FastAPI) -> None:
    """Serve the scripts and styles that fastapi-offline carries."""
    app.mount(ASSETS, _Assets(directory=Path(fastapi_offline.__file__).parent / "static"), name="docs-assets")
