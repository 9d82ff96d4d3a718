"""The images that a kustomization names under `images:`, and where in its text their digests stand or belong.

By the places of YAML's nodes, so that comments and what people wrote around them stay as they are.
"""

from collections.abc import Iterator
from typing import NamedTuple

import yaml


class OverlayImage(NamedTuple):
    """`name` with its tag; what is written between `start` and `end` becomes `before` and the digest."""

    name: str
    start: int
    end: int
    before: str


def images(text: str) -> Iterator[OverlayImage]:
    """Those with a tag, the last first: what is put into the text moves only what has been dealt with."""
    document = yaml.compose(text, yaml.SafeLoader)
    entries = [value for key, value in document.value if key.value == "images"] if document else []
    for entry in reversed(entries[0].value if entries else []):
        fields = {key.value: (key, value) for key, value in entry.value}
        if "newTag" not in fields:
            continue
        key, tag = fields["newTag"]
        name = f"{fields.get('newName', fields['name'])[1].value}:{tag.value}"
        if "digest" in fields:
            _, digest = fields["digest"]
            yield OverlayImage(name, digest.start_mark.index, digest.end_mark.index, "")
        else:
            before = ", digest: " if entry.flow_style else f"\n{' ' * key.start_mark.column}digest: "
            yield OverlayImage(name, tag.end_mark.index, tag.end_mark.index, before)


def with_digest(text: str, image: OverlayImage, digest: str) -> str:
    """The text, with this in its place."""
    return text[: image.start] + image.before + digest + text[image.end :]
