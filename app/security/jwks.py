"""The keys that an issuer signs with: each is for one algorithm, which is decided here and never by a token."""

import asyncio
import base64
import contextlib
from collections.abc import Mapping, Sequence
from hashlib import sha256
from time import monotonic
from typing import Any, NamedTuple, Protocol

import aiohttp
import jwt
import msgspec
import structlog

from app.security.watched import Watched

log = structlog.get_logger(__name__)

KEYS_MAX = 100
BYTES_MAX = 256 * 1024
FETCH_SECONDS_MAX = 5.0
REFRESH_SECONDS = 300.0
# A token may name a key that is not known yet, since it was just made; anybody can send one that names nonsense.
ASK_AGAIN_SECONDS = 30.0
RSA_BITS_MIN = 2048
SECRET_BYTES_MIN = 32
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


class Key(NamedTuple):
    """A key, and the only algorithm that it is used with."""

    algorithm: str
    key: Any


Keys = Mapping[str, Key]


class KeySource(Protocol):
    """Where an issuer's keys come from."""

    @property
    def keys(self) -> Keys:
        """By their ids; empty while none are known."""
        ...

    async def look_again(self) -> None:
        """A token names a key that is not among them: there may be news."""
        ...


def parse_jwks(content: bytes, algorithms: Sequence[str]) -> Keys:
    """The keys of a JSON Web Key Set that may verify signatures.

    Args:
        algorithms: those that are accepted. A key that names none is used with the first of them that it fits.

    Raises:
        ValueError: it is no key set, or none of its keys is of use.
    """
    try:
        found = msgspec.json.decode(content, type=dict[str, Any])["keys"]
        entries = [entry for entry in found if isinstance(entry, dict)][:KEYS_MAX]
    except (msgspec.DecodeError, KeyError, TypeError):
        raise ValueError("not a JSON Web Key Set") from None
    keys: dict[str, Key] = {}
    for entry in entries:
        algorithm = _algorithm(entry, algorithms)
        if algorithm is None:
            continue
        try:
            key = jwt.PyJWK.from_dict(_public(entry), algorithm=algorithm).key
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue  # one key that cannot be read is no reason to lock out those of the others
        if getattr(key, "key_size", RSA_BITS_MIN) < RSA_BITS_MIN and entry["kty"] == "RSA":
            continue
        keys[str(entry.get("kid", ""))] = Key(algorithm, key)
    if not keys:
        raise ValueError(f"no key of it can be used with {', '.join(algorithms)}")
    return keys


def parse_secrets(text: str, algorithm: str) -> Keys:
    """One secret a line, each known by a part of its hash; the first one signs.

    Raises:
        ValueError: one is too short.
    """
    keys: dict[str, Key] = {}
    for line in text.split():
        secret = line.encode()
        if len(secret) < SECRET_BYTES_MIN:
            raise ValueError(f"a secret of {len(secret)} bytes; it needs {SECRET_BYTES_MIN}")
        keys[secret_id(secret)] = Key(algorithm, secret)
    if not keys:
        raise ValueError("no secret in it")
    return keys


def secret_id(secret: bytes) -> str:
    """A name for a secret that tells nothing of it."""
    digest = sha256(b"sluice key id\0" + secret).digest()
    return base64.urlsafe_b64encode(digest[:6]).decode()


def _public(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Without what only the issuer should have, if it was published by mistake."""
    return {name: value for name, value in entry.items() if name not in {"d", "p", "q", "dp", "dq", "qi", "oth"}}


def _algorithm(entry: Mapping[str, Any], algorithms: Sequence[str]) -> str | None:
    """The algorithm that a key is for; None where it may not verify anything here."""
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
        return None
    fitting = [algorithm for algorithm in algorithms if _fits(entry, algorithm)]
    named = entry.get("alg")
    if named is not None:
        return named if named in fitting else None
    return fitting[0] if fitting else None


def _fits(entry: Mapping[str, Any], algorithm: str) -> bool:
    kind = entry.get("kty")
    if algorithm[:2] in {"RS", "PS"}:
        return kind == "RSA"
    if algorithm in _CURVES:
        return kind == "EC" and entry.get("crv") == _CURVES[algorithm]
    # Never a secret ("oct"): what a key set holds is public.
    return algorithm == "EdDSA" and kind == "OKP" and entry.get("crv") in {"Ed25519", "Ed448"}


class FileKeys:
    """Keys of a file."""

    def __init__(self, file: Watched[Keys]) -> None:
        self.file = file

    @property
    def keys(self) -> Keys:
        return self.file.value

    async def look_again(self) -> None:
        """The file is watched."""


class UrlKeys:
    """Keys at an address: fetched now and then, and once more where a token names an unknown one, but not often."""

    def __init__(self, url: str, algorithms: Sequence[str]) -> None:
        self._url = url
        self._algorithms = algorithms
        self._keys: Keys = {}
        self._asked_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    @property
    def keys(self) -> Keys:
        return self._keys

    async def look_again(self) -> None:
        if self._fetching is None or self._fetching.done():
            if monotonic() - self._asked_at < ASK_AGAIN_SECONDS:
                return
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
        # All who wait share one fetch; who gives up waiting does not end it.
        await asyncio.shield(self._fetching)

    async def run(self) -> None:
        """Fetch again and again."""
        while True:
            self._asked_at = float("-inf")
            await self.look_again()
            await asyncio.sleep(REFRESH_SECONDS if self._keys else FETCH_SECONDS_MAX)

    async def aclose(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._fetching

    async def _fetch(self) -> None:
        self._asked_at = monotonic()
        try:
            keys = parse_jwks(await self._download(), self._algorithms)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # Those that are known stay: an issuer that is down for an hour has signed nothing new.
            log.warning("key set not fetched", url=self._url, reason=f"{type(error).__name__}: {error}")
            return
        if keys.keys() != self._keys.keys():
            log.info("key set fetched", url=self._url, keys=len(keys))
        self._keys = keys

    async def _download(self) -> bytes:
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS_MAX)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            # A redirect would lead to keys of somebody whom nobody has named here.
            session.get(self._url, allow_redirects=False, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            content = bytearray()
            async for piece in answer.content.iter_chunked(16 * 1024):
                content += piece
                if len(content) > BYTES_MAX:
                    raise ValueError(f"larger than {BYTES_MAX} bytes")
            return bytes(content)
