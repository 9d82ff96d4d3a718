"""The name service of a cluster: says which addresses a headless Service has."""

import asyncio
import socket
import struct
from types import TracebackType
from typing import Self

HEADER_BYTES = 12
ANSWER_SECONDS = 5
NO_SUCH_NAME, IS_ANSWER, TYPE_A = 3, 0x8180, 1
# The name is that of the question, which begins behind the header.
SAME_NAME = 0xC000 | HEADER_BYTES


class ClusterDns(asyncio.DatagramProtocol):
    """Use as an async context manager; `names` may be changed while it runs, `asked` counts each name's questions."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}
        self.asked: dict[str, int] = {}

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        host, port = self._transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._transport.close()
        await asyncio.sleep(0)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, at = [], HEADER_BYTES
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        question = data[HEADER_BYTES : at + 5]
        name = ".".join(labels)
        self.asked[name] = self.asked.get(name, 0) + 1
        addresses = self.names.get(name, [])
        records = [
            struct.pack("!HHHIH", SAME_NAME, TYPE_A, 1, ANSWER_SECONDS, 4) + socket.inet_aton(one) for one in addresses
        ]
        flags = IS_ANSWER if addresses else IS_ANSWER | NO_SUCH_NAME
        header = data[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0)
        self._transport.sendto(header + question + b"".join(records), addr)
