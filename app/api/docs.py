"""/docs and /redoc with assets of our own: no reader's browser tells a third party what it reads here."""

from pathlib import Path

import fastapi_offline
from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)

ASSETS = "/docs/assets"
# Whatever the bundled scripts would fetch from elsewhere, the browser refuses.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src blob:"
)


@router.get("/docs")
async def swagger() -> HTMLResponse:
    """The API, to try."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Sluice API",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
    )
    page.headers["Content-Security-Policy"] = POLICY
    return page


@router.get("/redoc")
async def redoc() -> HTMLResponse:
    """The API, to read."""
    page = get_redoc_html(
        openapi_url="/openapi.json",
        title="Sluice API",
        redoc_js_url=f"{ASSETS}/redoc.standalone.js",
        redoc_favicon_url=f"{ASSETS}/favicon.png",
        with_google_fonts=False,
    )
    page.headers["Content-Security-Policy"] = POLICY
    return page


def mount_assets(app: FastAPI) -> None:
    """Serve the scripts and styles that fastapi-offline carries."""
    app.mount(ASSETS, StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static"), name="docs-assets")
