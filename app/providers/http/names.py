"""Names to addresses, beside the event loop's own resolver: that waits for a thread which other work may fill."""

import asyncio
import ipaddress
import socket

import aiodns

# Addresses behind a name move with a rollout of the upstream.
CACHE_SECONDS = 10
NAMES_MAX = 256  # kept at a time; there are as many as upstreams in the configuration

Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]  # as of `socket.getaddrinfo`


class Names:
    """A resolver with a short memory."""

    def __init__(self) -> None:
        self._resolver: aiodns.DNSResolver | None = None
        self._known: dict[tuple[str, int], tuple[float, list[Address]]] = {}

    async def find(self, host: str, port: int) -> list[Address]:
        """The addresses of `host`.

        Raises:
            OSError: it has none, or nobody knows.
        """
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            pass
        else:
            return [_address(socket.AF_INET if literal.version == 4 else socket.AF_INET6, host, port)]
        loop = asyncio.get_running_loop()
        until, addresses = self._known.get((host, port), (0.0, []))
        if loop.time() >= until:
            addresses = await self._ask(host, port)
            if len(self._known) >= NAMES_MAX:
                self._known.clear()
            self._known[host, port] = loop.time() + CACHE_SECONDS, addresses
        return addresses

    async def aclose(self) -> None:
        """Forget everything; questions under way fail."""
        self._known.clear()
        if self._resolver is not None:
            resolver, self._resolver = self._resolver, None
            await resolver.close()

    async def _ask(self, host: str, port: int) -> list[Address]:
        if self._resolver is None:
            self._resolver = aiodns.DNSResolver()
        try:
            found = await self._resolver.getaddrinfo(
                host, port=port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            )
        except aiodns.error.DNSError as error:
            raise OSError(f"{host}: {error.args[1] if len(error.args) > 1 else error}") from None
        addresses: list[Address] = [
            (node.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (node.addr[0].decode(), *node.addr[1:]))
            for node in found.nodes
        ]
        if not addresses:
            raise OSError(f"{host}: no address")
        return addresses


def _address(family: int, host: str, port: int) -> Address:
    where = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where
