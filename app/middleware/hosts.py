"""By which names this server may be asked, where that is bounded.

A page of another site whose name was made to point here (DNS rebinding) is, to its browser, our own page; what it asks
for still says the other name.
"""

from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from app.scope import sent_headers

# Kubelets and load balancers ask by address.
PROBES = frozenset({"/livez", "/readyz"})


class HostsMiddleware:
    """Refuses other names, also where no NGINX has done so.

    Args:
        hosts: names without ports, as NGINX's `server_name` has them: one that begins with `*.` stands for all below
            it, with `.` for itself too.
        answer: refuses, in the shape of the surface that was asked.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], answer: Callable[[Scope], ASGIApp]) -> None:
        self._app = app
        self._names = frozenset(host.removeprefix(".") for host in hosts if not host.startswith("*."))
        self._below = tuple(host.removeprefix("*") for host in hosts if host.startswith(("*.", ".")))
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] in PROBES or self._is_known(_host(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope)(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        return host in self._names or host.endswith(self._below)


def _host(scope: Scope) -> str:
    """As it was asked for, in lower case and without a port; an IPv6 address keeps its brackets."""
    value = sent_headers(scope).get(b"host", b"").decode("latin-1").lower()
    name, _, port = value.rpartition(":")
    return name if port.isdecimal() else value
