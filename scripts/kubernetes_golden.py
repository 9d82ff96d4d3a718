"""What the base, each overlay and so each component are built to, as files: a change shows in review what it does.

Left out is what would change with every other commit: kustomize's suffixes, which follow from contents, and contents
that files of this repository hold word for word, where their own change is seen.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from scripts.kubernetes import KUBERNETES, MARK
from scripts.kustomize import HASH, build

GOLDEN = KUBERNETES / "tests/golden"
OVERLAYS = ("overlays/dev", "overlays/staging", "overlays/production")
# The components that no overlay has are in these.
COMBINATIONS = ("tests/combinations/scaled", "tests/combinations/gateways")
FOLDERS = ("base", *OVERLAYS, *COMBINATIONS)
# Of which only the keys are kept: nginx/, and deploy/grafana/dashboards.
COPIES = ("sluice-nginx", "sluice-dashboard-")
LEFT_OUT = "(as in its file)"


def files() -> dict[Path, str]:
    """What each should hold, by what lies on the disk: to be asked after everything else has been written."""
    with ThreadPoolExecutor(2) as pool:
        built = pool.map(lambda folder: build(KUBERNETES / folder), FOLDERS)
    return {_path(folder): _mark(folder) + reviewed(text) for folder, text in zip(FOLDERS, built, strict=True)}


def _path(folder: str) -> Path:
    return GOLDEN / f"{folder.rpartition('/')[2]}.yaml"


def _mark(folder: str) -> str:
    return MARK.format(source=f" from k8s/{folder}, less suffixes and what other files hold")


def reviewed(text: str) -> str:
    """What was built, as it is kept."""
    texts = text.rstrip("\n").split("\n---\n")
    documents = [yaml.load(one, yaml.CSafeLoader) for one in texts]
    kept = "\n---\n".join(map(_kept, texts, documents))
    for document in documents:
        name = document["metadata"]["name"]
        # By name and everywhere: a suffix alone could be a word of somebody's.
        kept = kept.replace(name, HASH.sub("", name))
    return f"{kept}\n"


def _kept(text: str, document: dict[str, Any]) -> str:
    if document["kind"] == "ConfigMap" and document["metadata"]["name"].startswith(COPIES):
        document["data"] = dict.fromkeys(document["data"], LEFT_OUT)
    elif document["kind"] == "PrometheusRule":
        document["spec"]["groups"] = [
            {"name": group["name"], "rules": LEFT_OUT} for group in document["spec"]["groups"]
        ]
    else:
        return text
    return yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=True).rstrip("\n")
