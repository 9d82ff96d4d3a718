"""Where an HTTP request goes, taken from a URL once and not with every request."""

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """One server; connections to it are alike."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """For `Host`: without the port where that is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


class Target(NamedTuple):
    """What a URL names."""

    origin: Origin
    path: str
    userinfo: str | None  # `user:password`, for Basic authentication

    @classmethod
    def of(cls, url: str) -> "Target":
        """
        Raises:
            ValueError: the URL is not one of HTTP.
        """
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise ValueError("not an http or https URL with a host")
        # IDNA, which is what DNS, TLS and `Host` speak. UnicodeError is a ValueError.
        host = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
        origin = Origin(parts.scheme, host, parts.port or DEFAULT_PORTS[parts.scheme])
        path = parts.path or "/"
        userinfo = unquote(parts.netloc.rpartition("@")[0]) or None
        return cls(origin, f"{path}?{parts.query}" if parts.query else path, userinfo)
