"""`make pin-images`: adds to each image's tag the digest that its registry has for it, in the Dockerfiles and in k8s/.

Asks by skopeo, for what is named; our own images are in whatever registry an overlay names. What cannot be asked
stays as it is and is said: a digest is never made up. Then the manifests that are kept as built are built again.
"""

import re
import subprocess
import sys
from pathlib import Path

from scripts import kubernetes_golden, whole_files
from scripts.overlay_images import images, with_digest
from scripts.regions import HOME

ASK_SECONDS_MAX = 60
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
BASES = re.compile(r"^ARG \w+_IMAGE=([\w./-]+:[\w.-]+)(?:@sha256:\w+)?$", re.MULTILINE)
CONTAINERS = re.compile(r"image: ([\w./-]+:[\w.-]+)(?:@sha256:\w+)?$", re.MULTILINE)
# Each finds an image with an exact tag.
PLACES = (
    ("deploy/Dockerfile", BASES),
    ("loadtests/Dockerfile", BASES),
    ("k8s/components/redis/statefulset.yaml", CONTAINERS),
    ("k8s/components/redis-sentinel/statefulset.yaml", CONTAINERS),
)
# Not dev's, whose images may be in no registry: on the machine where they were built.
OVERLAYS = ("k8s/overlays/staging/kustomization.yaml", "k8s/overlays/production/kustomization.yaml")


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


class Registries:
    """What they say, each image asked for once."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def digest(self, image: str) -> str:
        if image not in self.known:
            self.known[image] = digest_of(image)
        return self.known[image]


def pin(home: Path) -> int:
    """How many images could not be pinned."""
    registries = Registries()
    for name, pattern in PLACES:
        path = home / name
        text = path.read_text()
        for image in dict.fromkeys(match[1] for match in pattern.finditer(text)):
            if digest := registries.digest(image):
                print(f"pin-images: {name}: {image}@{digest}")
                text = re.sub(rf"{re.escape(image)}(?:@sha256:\w+)?(?=\s)", f"{image}@{digest}", text)
        path.write_text(text)
    for name in OVERLAYS:
        path = home / name
        text = path.read_text()
        for found in images(text):
            if digest := registries.digest(found.name):
                print(f"pin-images: {name}: {found.name}@{digest}")
                text = with_digest(text, found, digest)
        path.write_text(text)
    return sum(not digest for digest in registries.known.values())


if __name__ == "__main__":
    missing = pin(HOME)
    whole_files.main(kubernetes_golden.files())
    sys.exit(1 if missing else 0)
