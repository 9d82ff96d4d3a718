"""Short tokens of our own, which the token endpoint issues in return for an API key or a password.

Signed with a secret that all workers share: a file that is made beside the sockets where none is named. Tokens are
checked as everybody's (`bearer`); they carry the account and the tier, and no key.
"""

import os
import secrets
from pathlib import Path
from time import time

import jwt

from app.security.bearer import TrustedIssuer
from app.security.jwks import FileKeys, Keys, parse_secrets
from app.security.principal import Principal
from app.security.watched import CredentialsError, Watched
from app.tiers import LEAST_TIER

ISSUER = "sluice"
ALGORITHM = "HS256"
TYPE = "at+jwt"
TIER_CLAIM = "tier"


class OwnTokens:
    """Issues them.

    Args:
        path: the file with the secrets; the first signs, all are accepted.
        seconds: how long a token is good for.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.seconds = seconds
        self.file: Watched[Keys] = Watched("SLUICE_TOKEN_KEY_FILE", path, lambda text: parse_secrets(text, ALGORITHM))

    @property
    def issuer(self) -> TrustedIssuer:
        """Us, as one of those who are trusted."""
        # Machines' clocks may differ by seconds.
        return TrustedIssuer(ISSUER, ISSUER, FileKeys(self.file), "", TIER_CLAIM, LEAST_TIER, leeway_seconds=5)

    def issue(self, principal: Principal) -> tuple[str, int]:
        """A token for the principal, and for how many seconds it is good: never longer than what it was got for."""
        now = int(time())
        expires = now + int(self.seconds)
        if principal.expires_at:
            expires = min(expires, int(principal.expires_at))
        kid, key = next(iter(self.file.value.items()))
        claims = {
            "iss": ISSUER,
            "aud": ISSUER,
            "sub": principal.account,
            TIER_CLAIM: principal.tier_name,
            "iat": now,
            "nbf": now,
            "exp": expires,
            "jti": secrets.token_urlsafe(12),
        }
        token = jwt.encode(claims, key.key, key.algorithm, headers={"kid": kid, "typ": TYPE})
        return token, expires - now


def secret_file(path: Path) -> Path:
    """The file, made with a secret of its own where it is missing; of several workers that start, one makes it.

    Raises:
        CredentialsError: it cannot be made.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(48) + "\n")
            try:
                os.link(temporary, path)
            except FileExistsError:
                pass
            finally:
                temporary.unlink()
    except OSError as error:
        raise CredentialsError(f"SLUICE_TOKEN_KEY_FILE: {path}: {error.strerror}") from None
    return path
