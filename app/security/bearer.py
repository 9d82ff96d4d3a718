"""Bearer tokens (JWT): whose they are, if one of the issuers that are trusted signed them for us.

What a token says of itself decides nothing. `iss` and `kid` only choose among the keys that are known; the algorithm is
the key's, from the configuration; `jku`, `jwk` and `x5u`, which would bring a key along, are not read.
"""

import base64
import binascii
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import sha256

import jwt
import msgspec

from app.errors import IdentityUnavailable, Unauthorized
from app.security.jwks import Key, KeySource
from app.security.principal import Principal
from app.tiers import Tier

TOKEN_CHARACTERS_MAX = 8_192
SUBJECT_CHARACTERS_MAX = 200
# Verified tokens that are remembered, some hundred bytes each: a signature is 30 to 60 us of CPU.
KNOWN_MAX = 10_000
# Tokens that are for something else than access (logout, DPoP proofs, SET) name another type.
TYPES = {None, "jwt", "at+jwt", "application/at+jwt"}
_REQUIRED = ["exp", "iss", "aud", "sub"]


class _Header(msgspec.Struct):
    kid: str = ""
    typ: str | None = None
    crit: list[str] = []


class _Claims(msgspec.Struct):
    iss: str


_header = msgspec.json.Decoder(_Header)
_claims = msgspec.json.Decoder(_Claims)


class TrustedIssuer(msgspec.Struct, frozen=True):
    """An issuer whose tokens are accepted.

    Args:
        prefix: goes before `sub` to make the account; empty where `sub` is one already, as in our own tokens.
        tier_claim, tier_name: the claim that names the tier, and the tier where it names none that there is.
    """

    issuer: str
    audience: str
    source: KeySource
    prefix: str
    tier_claim: str | None
    tier_name: str
    leeway_seconds: float = 30.0


class Bearer:
    """Verifies tokens.

    Args:
        issuers: each of another name.
        tiers: by name.
    """

    def __init__(self, issuers: Sequence[TrustedIssuer], tiers: Mapping[str, Tier]) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._tiers = tiers
        # By the token's hash, so that no token lies around in memory; with the key that it was verified by.
        self._known: OrderedDict[bytes, tuple[Principal, TrustedIssuer, str, Key]] = OrderedDict()

    async def principal(self, token: str) -> Principal:
        """Whose token it is.

        Raises:
            Unauthorized: nobody's.
            IdentityUnavailable: its issuer's keys are not known just now.
        """
        if len(token) > TOKEN_CHARACTERS_MAX:
            raise _refused()
        digest = sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None:
            found, issuer, kid, key = known
            # Only while its key is still one of the issuer's.
            if found.seconds_left and issuer.source.keys.get(kid) == key:
                return found
            del self._known[digest]
        issuer, kid = self._named(token)
        kid, key = await _find(issuer, kid)
        found = self._verified(token, issuer, key)
        self._known[digest] = (found, issuer, kid, key)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return found

    def _named(self, token: str) -> tuple[TrustedIssuer, str]:
        """The issuer and the key that the token names; nothing of it is believed yet."""
        try:
            header, payload, _ = token.split(".")
            named, claims = _header.decode(_part(header)), _claims.decode(_part(payload))
        except (ValueError, msgspec.DecodeError, RecursionError):
            raise _refused() from None
        issuer = self._issuers.get(claims.iss)
        # `crit` names what must be understood: nothing is.
        if issuer is None or named.crit or (named.typ and named.typ.lower()) not in TYPES:
            raise _refused()
        return issuer, named.kid

    def _verified(self, token: str, issuer: TrustedIssuer, key: Key) -> Principal:
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=issuer.leeway_seconds,
                options={"require": _REQUIRED},
            )
            expires_at = float(claims["exp"])
        except jwt.ExpiredSignatureError:
            raise _refused("The token has expired.") from None
        # Numbers, texts and depths of every kind: whatever reading them raises, it is no token of ours.
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError):
            raise _refused() from None
        subject = claims["sub"]
        fits = isinstance(subject, str) and 0 < len(subject) <= SUBJECT_CHARACTERS_MAX
        if not fits or not subject.isascii() or not subject.isprintable():
            raise _refused()
        tier = claims.get(issuer.tier_claim) if issuer.tier_claim else None
        tier_name = tier if isinstance(tier, str) and tier in self._tiers else issuer.tier_name
        return Principal.of(
            issuer.prefix + subject, tier_name, self._tiers[tier_name], expires_at, issuer.leeway_seconds
        )


async def _find(issuer: TrustedIssuer, kid: str) -> tuple[str, Key]:
    found = _choose(issuer, kid)
    if found is None:
        await issuer.source.look_again()
        found = _choose(issuer, kid)
    if found is not None:
        return found
    if not issuer.source.keys:
        raise IdentityUnavailable("The token cannot be checked just now.", retry_after_seconds=5)
    raise _refused()


def _choose(issuer: TrustedIssuer, kid: str) -> tuple[str, Key] | None:
    keys = issuer.source.keys
    if not kid and len(keys) == 1:
        return next(iter(keys.items()))
    return (kid, keys[kid]) if kid in keys else None


def _part(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64url") from None


def _refused(message: str = "The token is not valid.") -> Unauthorized:
    return Unauthorized(message)
