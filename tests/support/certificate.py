"""A certificate for 127.0.0.1 and localhost that signs itself, made by openssl."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

HOSTS = "DNS:localhost,DNS:api.example,IP:127.0.0.1"


@dataclass(frozen=True)
class Certificate:
    chain: Path
    key: Path

    @classmethod
    def of(cls, folder: Path) -> "Certificate":
        """The one in that folder, made where it is not there yet."""
        found = cls(folder / "certificate.pem", folder / "key.pem")
        if not found.chain.exists():
            command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            command += ["-days", "2", "-subj", "/CN=localhost", "-addext", f"subjectAltName={HOSTS}"]
            command += ["-keyout", str(found.key), "-out", str(found.chain)]
            subprocess.run(command, check=True, capture_output=True, timeout=30)
        return found

    def trusted(self) -> ssl.SSLContext:
        """For a client that believes it and nobody else."""
        return ssl.create_default_context(cafile=str(self.chain))
