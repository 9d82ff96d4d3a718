"""The models that are served and where their tokens come from, read from the file that `SLUICE_CONFIG` names."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError, field_validator, model_validator

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class CatalogError(ValueError):
    """The file cannot be used; the message is one line with file, line and key."""


class Upstream(BaseModel):
    """One place that tokens can come from. Everything but `provider` has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Literal["simulator", "openai"]
    resume: Literal["continue", "replay", "fail"] | None = None
    base_url: HttpUrl | None = None
    model: str | None = None
    api_key_env: str | None = None
    api_key_file: Path | None = None
    connect_seconds: Seconds = 5
    first_token_seconds: Seconds = 60
    idle_seconds: Seconds = 30
    total_seconds: Seconds = 600
    concurrency_max: int = Field(512, ge=1, le=100_000)
    retries_max: int = Field(2, ge=0, le=10)

    @field_validator("api_key_file")
    @classmethod
    def _key_can_be_read(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                value.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(str(error.strerror)) from None
        return value

    @model_validator(mode="after")
    def _openai_needs_base_url(self) -> "Upstream":
        if self.provider == "openai" and self.base_url is None:
            raise ValueError("provider openai needs a base_url")
        return self

    @property
    def resume_strategy(self) -> str:
        """How a stream whose worker died is taken up: the simulator goes on, others say it again and are compared."""
        return self.resume or ("continue" if self.provider == "simulator" else "replay")

    def api_key(self) -> str | None:
        """The key, from its file or variable; read at start and never logged."""
        if self.api_key_file is not None:
            return self.api_key_file.read_text(encoding="utf-8").strip()
        return os.environ.get(self.api_key_env) if self.api_key_env else None


class Model(BaseModel):
    """A model's upstreams in order of preference. A bare list of upstreams stands for `{upstreams: [...]}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upstreams: list[Upstream] = Field(min_length=1)
    after_first_token: Literal["continue", "splice", "reset", "fail"] = "fail"  # noqa: S105 - a token of text

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        return {"upstreams": value} if isinstance(value, list) else value


class Catalog(BaseModel):
    """All models by name; the first one answers requests that name none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, Model] = Field(min_length=1)


SIMULATOR_ONLY = Catalog.model_validate({"models": {"simulator": [{"provider": "simulator"}]}})


def load_catalog(path: Path | None) -> Catalog:
    """The catalog in `path`; without one, the simulator alone.

    Raises:
        CatalogError: the file cannot be read, is not YAML, or does not fit; file, line and key are named.
    """
    if path is None:
        return SIMULATOR_ONLY
    try:
        # Not the locale's encoding: service managers set it to C.
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_repeated_keys(root)
        return Catalog.model_validate(yaml.safe_load(text))
    except OSError as error:
        raise CatalogError(f"SLUICE_CONFIG: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CatalogError(f"SLUICE_CONFIG: {path}: not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise CatalogError(f"SLUICE_CONFIG: {path}, line {line}: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise CatalogError(f"SLUICE_CONFIG: {path}, line {line}: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top level)"
        raise CatalogError(f"SLUICE_CONFIG: {path}, line {_line(root, first['loc'])}: {key}: {first['msg']}") from None


def _refuse_repeated_keys(root: yaml.Node | None) -> None:
    """YAML would take the last of two models of one name, and say nothing of the first."""
    nodes, seen = [root], set()
    while nodes:
        node = nodes.pop()
        if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
            continue
        seen.add(id(node))  # an alias leads to a node that is known, and may lead in a circle
        pairs = node.value if isinstance(node, yaml.MappingNode) else [(None, value) for value in node.value]
        names = set()
        for key, value in pairs:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise yaml.MarkedYAMLError(problem=f"{key.value} is there twice", problem_mark=key.start_mark)
                names.add(key.value)
            nodes.append(value)


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line of the innermost part of `location` that the file has."""
    line = node.start_mark.line + 1 if node else 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                continue  # a level that the file leaves out, such as `upstreams` before a bare list
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
