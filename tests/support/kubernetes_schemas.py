"""Kubernetes' own schemas in strict form, as kubernetes-validate carries them; and ours for the kinds of extensions.

The package's `validate` reads a megabyte of definitions for each manifest; here each version's are read once.
"""

import functools
import json
from typing import Any

import jsonschema
import kubernetes_validate.utils
import yaml
from jsonschema.protocols import Validator
from referencing import Registry, Resource

from tests.support.manifests import KUBERNETES, Manifest

# Each with its `apiVersion`, and the schema of its `spec`: the rest of a manifest is what it is of every kind.
OF_EXTENSIONS = {path.stem: yaml.safe_load(path.read_text()) for path in (KUBERNETES / "tests/schemas").glob("*.yaml")}


@functools.cache
def _definitions(version: str) -> "Registry[Any]":
    contents = kubernetes_validate.utils.schema_contents(_path(version, "_definitions"), version)
    return Resource.from_contents(contents) @ Registry()


def _path(version: str, name: str) -> str:
    return f"kubernetes-json-schema/v{version}.0-local-strict/{name}.json"


@functools.cache
def _extension(kind: str, version: str) -> Validator:
    own = OF_EXTENSIONS[kind]
    metadata = "https://kubernetes.io/api/_definitions.json#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": own["apiVersion"]},
            "kind": {"const": kind},
            "metadata": {"$ref": metadata},
            "spec": own["spec"],
        },
    }
    return jsonschema.Draft202012Validator(schema, registry=_definitions(version))


@functools.cache
def _validator(kind: str, api_version: str, version: str) -> Validator:
    group, _, short = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], short) if part)
    schema = kubernetes_validate.utils.schema_contents(_path(version, name), version)
    registry = Resource.from_contents(schema) @ _definitions(version)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@functools.cache
def _check(manifest: str, version: str) -> None:
    found = json.loads(manifest)
    if found["kind"] in OF_EXTENSIONS:
        _extension(found["kind"], version).validate(found)
    else:
        _validator(found["kind"], found["apiVersion"], version).validate(found)


def check(manifest: Manifest, version: str) -> None:
    """Raises jsonschema's ValidationError; unknown fields are errors. The same manifest is looked at once."""
    _check(json.dumps(manifest), version)
