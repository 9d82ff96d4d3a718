"""Who comes in and how much they may use, put together from the settings and the models file."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from app.api.access import Access, Users
from app.catalog import Catalog
from app.issuers import Issuer
from app.limits.counters import Counters
from app.limits.limiter import Held, Limiter
from app.limits.quotas import Quotas
from app.limits.stores import open_counters
from app.security.address import Addresses, parse_networks
from app.security.api_keys import Keys, parse_keys
from app.security.authenticator import Authenticator
from app.security.bearer import Bearer, TrustedIssuer
from app.security.jwks import FileKeys, KeySource, UrlKeys, parse_jwks, parse_secrets
from app.security.jwks import Keys as IssuerKeys
from app.security.own_tokens import OwnTokens, secret_file
from app.security.redis_keys import RedisKeys
from app.security.tickets import Tickets
from app.security.users import Passwords, parse_users
from app.security.watched import CredentialsError, Watched
from app.settings import Settings, SettingsError


@dataclass(frozen=True)
class Credentials:
    """Everything that is read from files. Where nobody is told from others, nobody gets tokens either."""

    keys: Watched[Keys] | None
    users: Watched[Users] | None
    own_tokens: OwnTokens | None
    issuers: tuple[TrustedIssuer, ...]

    @property
    def files(self) -> list[Watched[Any]]:
        """Those that are read again when they change."""
        sources = [issuer.source for issuer in self.issuers]
        found: list[Watched[Any] | None] = [
            self.keys,
            self.users,
            *(source.file for source in sources if isinstance(source, FileKeys)),
        ]
        return [file for file in found if file is not None]


def read_credentials(settings: Settings, catalog: Catalog) -> Credentials:
    """All files of credentials.

    Raises:
        SettingsError: one cannot be used, or production would be open to everybody.
    """
    if settings.environment == "production" and not _is_closed(settings, catalog):
        raise SettingsError(
            "SLUICE_API_KEYS_FILE: without it, SLUICE_API_KEYS_IN_REDIS, SLUICE_USERS_FILE or issuers in SLUICE_CONFIG "
            "everybody may come in; production needs one of them"
        )
    if settings.api_keys_in_redis and not settings.limits_store_url.startswith("redis"):
        raise SettingsError("SLUICE_API_KEYS_IN_REDIS: needs SLUICE_LIMITS_STORE to be redis://…")
    try:
        parse_networks(settings.trusted_proxies)
    except ValueError as error:
        raise SettingsError(f"SLUICE_TRUSTED_PROXIES: {error}") from None
    tiers = catalog.tiers
    try:
        keys: Watched[Keys] | None = None
        users: Watched[Users] | None = None
        if settings.api_keys_file is not None:
            keys = Watched("SLUICE_API_KEYS_FILE", settings.api_keys_file, partial(parse_keys, tiers=tiers))
        if settings.users_file is not None:
            users = Watched("SLUICE_USERS_FILE", settings.users_file, partial(parse_users, tiers=tiers))
        own: OwnTokens | None = None
        issuers = [_trusted(issuer) for issuer in catalog.issuers]
        if _is_closed(settings, catalog):
            own = OwnTokens(secret_file(settings.token_key_path), settings.token_seconds)
            issuers.append(own.issuer)
    except CredentialsError as error:
        raise SettingsError(str(error)) from None
    return Credentials(keys, users, own, tuple(issuers))


_adopted: Credentials | None = None


def adopt_credentials(credentials: Credentials) -> None:
    """Have this process, and those that it forks, begin with these, whatever becomes of the files."""
    global _adopted  # noqa: PLW0603 - what a master hands to its workers has no other way through a fork
    _adopted = credentials


def adopted_credentials() -> Credentials | None:
    """What was adopted, if anything was."""
    return _adopted


class Entrance:
    """What one worker has of it, from `open` to `aclose`."""

    def __init__(self, settings: Settings, catalog: Catalog, credentials: Credentials) -> None:
        self._settings = settings
        self._catalog = catalog
        self._credentials = credentials
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, held: Held) -> Self:
        """Connect, and keep up with what changes.

        Args:
            held: the slots of the streams that are produced here.

        Raises:
            LogUnavailable: the store of limits cannot be opened.
        """
        settings, catalog, credentials = self._settings, self._catalog, self._credentials
        # What a master has read may be old by now.
        await asyncio.gather(*(file.look() for file in credentials.files))
        store: Counters = await open_counters(settings.limits_store_url)
        self.limiter = Limiter(store, settings.derived_waits()["beat_seconds"])
        self._redis_keys: RedisKeys | None = None
        if settings.api_keys_in_redis:
            self._redis_keys = await RedisKeys(
                settings.limits_store_url, catalog.tiers, self.limiter.leave_alone
            ).open()
        self._passwords = Passwords()
        authenticator = Authenticator(
            _is_closed(settings, catalog),
            catalog.tiers,
            Addresses(parse_networks(settings.trusted_proxies)),
            Bearer(credentials.issuers, catalog.tiers),
            Tickets(store, settings.stream_ttl_seconds, settings.token_seconds),
            credentials.keys,
            self._redis_keys,
        )
        quotas = Quotas(self.limiter, catalog.tiers)
        self.access = Access(authenticator, quotas, credentials.own_tokens, self._passwords, credentials.users)
        self._keep_up(held)
        return self

    def _keep_up(self, held: Held) -> None:
        duties = [self.limiter.run(held), *(file.run() for file in self._credentials.files)]
        duties += [source.run() for source in self._fetched()]
        self._tasks = [asyncio.create_task(duty, name="entrance") for duty in duties]

    def _fetched(self) -> Sequence[UrlKeys]:
        return [issuer.source for issuer in self._credentials.issuers if isinstance(issuer.source, UrlKeys)]

    async def aclose(self) -> None:
        """Let go of everything."""
        for task in self._tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)
        for source in self._fetched():
            await source.aclose()
        self._passwords.close()
        if self._redis_keys is not None:
            await self._redis_keys.aclose()
        await self.limiter.aclose()


def _is_closed(settings: Settings, catalog: Catalog) -> bool:
    """Whether there is anybody to be told from others."""
    files = (settings.api_keys_file, settings.users_file)
    return any(file is not None for file in files) or settings.api_keys_in_redis or bool(catalog.issuers)


def _trusted(issuer: Issuer) -> TrustedIssuer:
    return TrustedIssuer(
        issuer.issuer,
        issuer.audience,
        _source(issuer),
        f"{issuer.name}:",
        issuer.tier_claim,
        issuer.tier,
        issuer.leeway_seconds,
    )


def _source(issuer: Issuer) -> KeySource:
    setting = f"SLUICE_CONFIG: issuers: {issuer.name}"
    if issuer.jwks_url is not None:
        return UrlKeys(str(issuer.jwks_url), issuer.algorithms)
    if issuer.secret_file is not None:
        algorithm = issuer.algorithms[0]
        secrets: Watched[IssuerKeys] = Watched(setting, issuer.secret_file, lambda text: parse_secrets(text, algorithm))
        return FileKeys(secrets)
    assert issuer.jwks_file is not None
    keys: Watched[IssuerKeys] = Watched(
        setting, issuer.jwks_file, lambda text: parse_jwks(text.encode(), issuer.algorithms)
    )
    return FileKeys(keys)
