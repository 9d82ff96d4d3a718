"""The part of a Kubernetes API server that knows pods, over TLS, and exporters that say how many streams a pod has."""

import asyncio
import copy
import ssl
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.support.certificate import Certificate

TOKEN = "a-token-of-the-cluster"
NAMESPACE = "sluice"
EXPOSITION = """# HELP sluice_active_streams Generations that a worker owns; whether it drains.
# TYPE sluice_active_streams gauge
sluice_active_streams{{draining="false"}} {serving}
sluice_active_streams{{draining="true"}} {draining}
"""


class FakeCluster:
    """Use as an async context manager; `account` is then the folder that a kubelet would mount.

    Attributes:
        pods: by name, as the server has them.
        patches: what was patched, in order.
        refuse: answers everything with this status, when it is set.
        answers: nothing is answered while it is not set.
    """

    def __init__(self, folder: Path) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.patches: list[tuple[str, dict[str, Any]]] = []
        self.queries: list[dict[str, str]] = []
        self.refuse: int | None = None
        self.answers = asyncio.Event()
        self.answers.set()
        self.account = folder / "account"
        self._folder = folder
        self._runners: list[web.AppRunner] = []

    async def __aenter__(self) -> Self:
        certificate = Certificate.of(self._folder)
        self.account.mkdir()
        (self.account / "token").write_text(f"{TOKEN}\n")
        (self.account / "namespace").write_text(NAMESPACE)
        (self.account / "ca.crt").write_text(certificate.chain.read_text())
        app = web.Application(middlewares=[self._guard])
        pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
        app.router.add_get(pods, self._list)
        app.router.add_patch(f"{pods}/{{name}}", self._patch)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate.chain, certificate.key)
        self.port = await self._serve(app, context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answers.set()
        for runner in self._runners:
            await runner.cleanup()

    @property
    def environment(self) -> dict[str, str]:
        """What the kubelet puts into every container."""
        return {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}

    async def add(self, name: str, streams: int | str, *, draining: int = 0, ready: bool = True) -> None:
        """A pod of the app, whose exporter says so; or says just this, if it is a text."""
        text = streams if isinstance(streams, str) else EXPOSITION.format(serving=streams, draining=draining)

        async def metrics(_request: web.Request) -> web.Response:
            return web.Response(text=text)

        app = web.Application()
        app.router.add_get("/metrics", metrics)
        ports = [{"name": "metrics", "containerPort": await self._serve(app, None)}]
        labels = {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/component": "api"}
        self.pods[name] = {
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "initContainers": [{"name": "nginx-config"}, {"name": "exporter", "ports": ports}],
                "containers": [{"name": "app"}],
            },
            "status": {"podIP": "127.0.0.1", "conditions": [{"type": "Ready", "status": str(ready)}]},
        }

    def cost(self, name: str) -> str | None:
        found: str | None = (
            self.pods[name]["metadata"].get("annotations", {}).get("controller.kubernetes.io/pod-deletion-cost")
        )
        return found

    async def _serve(self, app: web.Application, context: ssl.SSLContext | None) -> int:
        runner = web.AppRunner(app, shutdown_timeout=1.0)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port: int = runner.addresses[0][1]
        return port

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        await self.answers.wait()
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized")
        if self.refuse is not None:
            return _status(self.refuse, "pods is forbidden")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _list(self, request: web.Request) -> web.Response:
        self.queries.append(dict(request.query))
        wanted = dict(one.split("=") for one in request.query["labelSelector"].split(","))
        found = [pod for pod in self.pods.values() if wanted.items() <= pod["metadata"]["labels"].items()]
        return web.json_response({"kind": "PodList", "items": copy.deepcopy(found)})

    async def _patch(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.pods:
            return _status(404, f'pods "{name}" not found')
        if request.content_type != "application/merge-patch+json":
            return _status(415, "the body of the request was in an unknown format")
        patch = await request.json()
        self.patches.append((name, patch))
        self.pods[name] = _merged(self.pods[name], patch)
        return web.json_response(self.pods[name])


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "status": "Failure", "message": message, "code": code}, status=code)


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
