"""What stands between a stream and its client; looked at in another process, since making an app sets up its logs."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
# Without these, what they ask for is not there at all.
OPTIONAL = {"SLUICE_CORS_ORIGINS": "https://app.example", "SLUICE_SERVER_NAMES": "api.example"}
WALK = """
import json
from starlette.middleware.base import BaseHTTPMiddleware
from tests.support.application import application

def bases(cls):
    return [base.__name__ for base in cls.__mro__]

app = application()
stack, classes = app.build_middleware_stack(), []
while stack is not None:
    classes.append((type(stack).__name__, bases(type(stack))))
    stack = getattr(stack, "app", None) or getattr(stack, "_app", None)
print(json.dumps({
    "declared": [(each.cls.__name__, bases(each.cls)) for each in app.user_middleware],
    "built": classes,
}))
"""


@cache
def walked() -> dict[str, list[tuple[str, list[str]]]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
    ran = subprocess.run(
        [sys.executable, "-c", WALK],
        cwd=ROOT,
        env=environment | OPTIONAL | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, list[tuple[str, list[str]]]] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_every_middleware_is_pure_asgi_and_none_compresses() -> None:
    """A BaseHTTPMiddleware hides disconnects and costs ten times the stream; GZip withholds the headers."""
    found = walked()
    names = [name for name, _ in found["declared"]]
    assert {"RequestIdMiddleware", "AccessLogMiddleware", "ErrorsMiddleware"} <= set(names)
    assert len(found["built"]) >= len(names) + 2, "the walk reaches all that was built"
    for name, bases in found["declared"] + found["built"]:
        assert "BaseHTTPMiddleware" not in bases, name
        assert "GZipMiddleware" not in bases, name
        assert "compress" not in name.lower(), name


def test_a_request_passes_what_guards_the_server_in_this_order() -> None:
    """Named before it is logged, and logged whatever becomes of it. What is refused is guarded too: for its host before
    its body is read, and a script that may not ask is told so though the server drains."""
    assert [name for name, _ in walked()["declared"]] == [
        "RequestIdMiddleware",
        "AccessLogMiddleware",
        "SecurityHeadersMiddleware",
        "HostsMiddleware",
        "BodyLimitMiddleware",
        "SitesMiddleware",
        "DrainMiddleware",
        "ErrorsMiddleware",
    ]
