"""Tells readers in other processes that a stream has news: Unix datagrams between those who have one store open.

Whoever waits for a stream announces it to all the others; whoever commits to it tells those who announced it, and only
them. That a stream is to be cancelled is told to everybody, and is its owner's business. Nothing waits, and a datagram
may be lost: readers look for themselves four times a second as well, and owners at every beat.
"""

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import monotonic

import msgspec

# An interest is renewed while it lasts, and forgotten soon after.
ANNOUNCE_SECONDS = 1.0
INTEREST_SECONDS = 3.0
# Bounds what strangers' announcements can make us remember; beyond it readers are left to their own looking.
INTERESTS_MAX = 50_000
# Streams in one datagram: at 40 characters each, far below what a Unix socket takes.
STREAMS_MAX = 1000
# Datagrams taken at one turn of the event loop.
DATAGRAMS_MAX = 64
DATAGRAM_BYTES_MAX = 1 << 18
PEERS_SECONDS = 1.0


class Message(msgspec.Struct, array_like=True):
    """`sender` is interested in the streams; without a sender, there is news of them.

    `cancels_of` is a worker that is asked to stop some of its streams. What an earlier version does not know it drops.
    """

    sender: str
    streams: list[str]
    cancels_of: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


class Wakeups:
    """This process's socket, and what it knows of the others'.

    Args:
        folder: of the sockets, one for each process; made where it is missing.
        woken: called with each stream that another process has written to.
        cancels: called with the worker that another process wants to stop a stream.
    """

    def __init__(self, folder: Path, woken: Callable[[str], None], cancels: Callable[[str], None]) -> None:
        self._woken = woken
        self._cancels = cancels
        folder.mkdir(exist_ok=True, mode=0o700)
        # Sockets are addressed through this descriptor: a path of its own may be too long for an address.
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(self._address(self._name))
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._receive)
        self._peers: list[str] = []
        self._peers_at = float("-inf")
        self._announced: dict[str, float] = {}
        self._interests: dict[str, dict[str, float]] = {}
        self._interests_count = 0

    def announce(self, streams: Iterable[str]) -> None:
        """Have the others say when there is news of these; for a few seconds, so it is to be repeated."""
        now = monotonic()
        new = [stream for stream in streams if now - self._announced.get(stream, 0.0) > ANNOUNCE_SECONDS]
        if not new:
            return
        for stream in new:
            self._announced[stream] = now
        for peer in self._list_peers():
            self._send_all(peer, self._name, new)

    @property
    def wanted(self) -> bool:
        """Whether anybody wants to know of anything."""
        return bool(self._interests)

    def wake(self, streams: Iterable[str]) -> None:
        """Tell those who want to know that there is news of these."""
        now = monotonic()
        wanted: dict[str, list[str]] = {}
        for stream in streams:
            for peer, until in self._interests.get(stream, {}).items():
                if until > now:
                    wanted.setdefault(peer, []).append(stream)
        for peer, news in wanted.items():
            self._send_all(peer, "", news)

    def tell_to_cancel(self, owner: str) -> None:
        """Have the worker look for streams that it is to stop."""
        for peer in self._list_peers():
            self._send(peer, Message("", [], owner))

    def forget(self) -> None:
        """Drop what nobody has repeated; to be called every few seconds."""
        now = monotonic()
        self._announced = {stream: at for stream, at in self._announced.items() if now - at < INTEREST_SECONDS}
        for stream, peers in list(self._interests.items()):
            left = {peer: until for peer, until in peers.items() if until > now}
            if left:
                self._interests[stream] = left
            else:
                del self._interests[stream]
        self._interests_count = sum(len(peers) for peers in self._interests.values())

    def close(self) -> None:
        """Leave; the others notice."""
        self._loop.remove_reader(self._socket)
        self._socket.close()
        with contextlib.suppress(OSError):
            os.unlink(self._name, dir_fd=self._folder)
        os.close(self._folder)

    def _receive(self) -> None:
        for _ in range(DATAGRAMS_MAX):
            try:
                message = _decoder.decode(self._socket.recv(DATAGRAM_BYTES_MAX))
            except (BlockingIOError, InterruptedError):
                return
            except msgspec.DecodeError:
                continue
            if message.cancels_of:
                self._cancels(message.cancels_of)
            elif message.sender:
                self._note(message.sender, message.streams)
            else:
                for stream in message.streams:
                    self._woken(stream)

    def _note(self, peer: str, streams: Sequence[str]) -> None:
        until = monotonic() + INTEREST_SECONDS
        for stream in streams:
            peers = self._interests.setdefault(stream, {})
            if peer not in peers:
                if self._interests_count >= INTERESTS_MAX:
                    return
                self._interests_count += 1
            peers[peer] = until

    def _list_peers(self) -> list[str]:
        if monotonic() - self._peers_at > PEERS_SECONDS:
            self._peers_at = monotonic()
            self._peers = [name for name in os.listdir(self._folder) if name != self._name]
        return list(self._peers)

    def _send_all(self, peer: str, sender: str, streams: Sequence[str]) -> None:
        for start in range(0, len(streams), STREAMS_MAX):
            if not self._send(peer, Message(sender, list(streams[start : start + STREAMS_MAX]))):
                return

    def _send(self, peer: str, message: Message) -> bool:
        try:
            self._socket.sendto(_encoder.encode(message), self._address(peer))
        except BlockingIOError:
            return False  # it does not keep up, or was stopped: it will look for itself
        except (ConnectionRefusedError, FileNotFoundError):
            self._drop(peer)
            return False
        return True

    def _drop(self, peer: str) -> None:
        """The process is gone; names are never used twice, so its socket can be deleted."""
        with contextlib.suppress(OSError):
            os.unlink(peer, dir_fd=self._folder)
        if peer in self._peers:
            self._peers.remove(peer)
        for peers in self._interests.values():
            if peers.pop(peer, None) is not None:
                self._interests_count -= 1

    def _address(self, name: str) -> str:
        return f"/proc/self/fd/{self._folder}/{name}"
