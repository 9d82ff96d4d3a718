"""The stream log's Redis URL: which servers, which kind of deployment, which credentials.

    redis://[user:password@]host[:port][/db]
    redis+sentinel://[user:password@]host[:port],host[:port]…/service[/db]
    redis+cluster://[user:password@]host[:port],host[:port]…

`rediss` in place of `redis` means TLS. The user and password are those of the Redis servers; Sentinels that want their
own get them as `?sentinel_username=…&sentinel_password=…`. TLS takes redis-py's `ssl_ca_certs`, `ssl_certfile`,
`ssl_keyfile` and `ssl_cert_reqs`. Percent-encode what is special in a URL.
"""

from typing import Literal
from urllib.parse import parse_qsl, unquote

import msgspec

Kind = Literal["standalone", "sentinel", "cluster"]
Address = tuple[str, int]

REDIS_PORT = 6379
SENTINEL_PORT = 26379
_KINDS: dict[str, Kind] = {"": "standalone", "sentinel": "sentinel", "cluster": "cluster"}
_OPTIONS = {
    "sentinel_username",
    "sentinel_password",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
}


class RedisURL(msgspec.Struct, frozen=True):
    """A parsed URL. `safe` is the same without credentials, for messages."""

    kind: Kind
    tls: bool
    addresses: tuple[Address, ...]
    safe: str
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None
    options: dict[str, str] = {}


def parse_redis_url(text: str) -> RedisURL:
    """Take the URL apart.

    Raises:
        ValueError: it is none of the forms above; the message shows it without its credentials.
    """
    scheme, _, rest = text.partition("://")
    rest, _, query = rest.partition("?")
    if "@" in query and "@" not in rest:
        raise ValueError(f"{scheme}://…: a ? or @ in a password must be percent-encoded")
    credentials, _, hosts_and_path = rest.rpartition("@")
    safe = f"{scheme}://{hosts_and_path}"
    family, _, kind_name = scheme.partition("+")
    if family not in {"redis", "rediss"} or kind_name not in _KINDS:
        raise ValueError(f"{safe}: the scheme must be redis or rediss, then nothing, +sentinel or +cluster")
    kind = _KINDS[kind_name]
    hosts, _, path = hosts_and_path.partition("/")
    options = dict(parse_qsl(query))
    if unknown := options.keys() - _OPTIONS:
        raise ValueError(f"{safe}: unknown option {min(unknown)}")
    username, _, password = credentials.partition(":")
    service, db = _service_and_db(kind, [unquote(step) for step in path.split("/") if step], safe)
    port = SENTINEL_PORT if kind == "sentinel" else REDIS_PORT
    addresses = tuple(_address(host, port, safe) for host in hosts.split(","))
    if kind == "standalone" and len(addresses) > 1:
        raise ValueError(f"{safe}: several hosts need redis+sentinel or redis+cluster")
    return RedisURL(
        kind=kind,
        tls=family == "rediss",
        addresses=addresses,
        safe=safe,
        service=service,
        db=db,
        username=unquote(username) or None,
        password=unquote(password) or None,
        options=options,
    )


def _service_and_db(kind: Kind, path: list[str], safe: str) -> tuple[str, int]:
    service = ""
    if kind == "sentinel":
        if not path:
            raise ValueError(f"{safe}: the service's name is missing behind the Sentinels")
        service = path.pop(0)
    if not path:
        return service, 0
    if kind == "cluster" or len(path) > 1 or not path[0].isdecimal():
        raise ValueError(f"{safe}: '/{'/'.join(path)}' is not a database" + (" in a cluster" * (kind == "cluster")))
    return service, int(path[0])


def _address(text: str, port: int, safe: str) -> Address:
    host, colon, number = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, number = text, str(port)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not number.isdecimal() or not 0 < int(number) < 65_536:
        raise ValueError(f"{safe}: '{text}' is not host:port")
    return host, int(number)
