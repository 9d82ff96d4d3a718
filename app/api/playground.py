"""/playground: a page on which people watch streams, and the browser client that it uses. Static files, all ours."""

from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.errors import NotFound

router = APIRouter(include_in_schema=False)

STATIC = Path(__file__).parent / "static"
PAGE = "playground.html"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing that a prompt or an answer could bring into the page runs, loads or leads elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class StaticFile(NamedTuple):
    """A file as it is served."""

    body: bytes
    etag: str
    content_type: str


def _load() -> dict[str, StaticFile]:
    """All files by their path below `static/`. Read once: a hundred kilobytes, and no disk while streams run."""
    files = {}
    for path in STATIC.rglob("*"):
        if path.suffix in CONTENT_TYPES:
            body = path.read_bytes()
            etag = f'"{blake2b(body, digest_size=16).hexdigest()}"'
            files[path.relative_to(STATIC).as_posix()] = StaticFile(body, etag, CONTENT_TYPES[path.suffix])
    return files


_files = _load()


@router.get("/playground")
async def page(request: Request) -> Response:
    """The page."""
    return _serve(request, PAGE)


@router.get("/playground/{name:path}")
async def asset(request: Request, name: str) -> Response:
    """What the page consists of."""
    return _serve(request, name)


def _serve(request: Request, name: str) -> Response:
    file = _files.get(name)
    if file is None:
        raise NotFound("There is no such file.")
    headers = {
        "Content-Security-Policy": POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        # Kept, and asked for each time: after an update nobody runs half of the old page with half of the new one.
        "Cache-Control": "no-cache",
        "ETag": file.etag,
    }
    # A proxy that compresses makes the tag a weak one.
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if file.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers | {"Content-Type": file.content_type})
