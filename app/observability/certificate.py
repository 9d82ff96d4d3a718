"""When a certificate is over, read from its file: whoever renews it replaces the file."""

from pathlib import Path

from cryptography import x509


def expiry(file: Path) -> float | None:
    """As Unix time, of the first certificate in a PEM file; None where there is none to be read."""
    try:
        return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):
        return None
