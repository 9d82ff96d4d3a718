"""`make pin-images`: adds to each image's tag the digest that its registry has for it, in the Dockerfile and in k8s/.

Asks by skopeo, for what is named; our own images are in whatever registry an overlay names. What cannot be asked
stays as it is and is said: a digest is never made up.
"""

import re
import subprocess
import sys
from pathlib import Path

from scripts.regions import HOME

ASK_SECONDS_MAX = 60
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Each finds an image with an exact tag, and keeps what stands around it.
PLACES = (
    ("deploy/Dockerfile", re.compile(r"^(ARG \w+_IMAGE=)([\w./-]+:[\w.-]+)(?:@sha256:\w+)?()$", re.MULTILINE)),
    ("k8s/components/redis/statefulset.yaml", re.compile(r"(image: )([\w./-]+:[\w.-]+)(?:@sha256:\w+)?()")),
    ("k8s/components/redis-sentinel/statefulset.yaml", re.compile(r"(image: )([\w./-]+:[\w.-]+)(?:@sha256:\w+)?()")),
)


def digest_of(image: str) -> str:
    """What the registry says; empty where it cannot be asked."""
    command = ["skopeo", "inspect", "--format", "{{.Digest}}", f"docker://{image}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_SECONDS_MAX, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        print(f"pin-images: {image}: {error}", file=sys.stderr)
        return ""
    found = done.stdout.strip()
    if done.returncode or not DIGEST.fullmatch(found):
        print(f"pin-images: {image}: {' '.join(done.stderr.split())[:300] or 'no digest'}", file=sys.stderr)
        return ""
    return found


def pin(home: Path) -> int:
    """How many images could not be pinned."""
    known: dict[str, str] = {}
    missing = 0
    for name, pattern in PLACES:
        path = home / name
        text = path.read_text()
        for image in dict.fromkeys(match[2] for match in pattern.finditer(text)):
            if image not in known:
                known[image] = digest_of(image)
                missing += not known[image]
            if known[image]:
                pinned = f"{image}@{known[image]}"
                print(f"pin-images: {name}: {pinned}")
                text = re.sub(rf"{re.escape(image)}(?:@sha256:\w+)?(?=\s)", pinned, text)
        path.write_text(text)
    return missing


if __name__ == "__main__":
    sys.exit(1 if pin(HOME) else 0)
