"""The models that are served and where their tokens come from, read from the file that `SLUICE_CONFIG` names."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from app.issuers import Issuer
from app.tiers import EXAMPLES, LEAST_TIER, Tier

Seconds = Annotated[float, Field(gt=0, le=86_400)]
# What is surely the name of a variable and not a key that was written in its place.
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


class CatalogError(ValueError):
    """The file cannot be used; the message is one line with file, line and key."""


class Price(BaseModel):
    """Of a million tokens, in whatever currency the operator counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(0, ge=0, le=1_000_000)
    output: float = Field(0, ge=0, le=1_000_000)


class Upstream(BaseModel):
    """One place that tokens can come from. Everything but `provider` has a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: Literal["simulator", "openai", "anthropic", "langchain"]
    runnable: str | None = Field(None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")
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
    queue_max: int = Field(64, ge=0, le=100_000)
    queue_seconds: Seconds = 5
    retries_max: int = Field(2, ge=0, le=10)
    weight: float | None = Field(None, ge=0, le=1000)
    prefill: Literal["assistant", "vllm", "prefix"] | bool = False
    tools: bool = True
    usage_chunk: bool = True
    price: Price | None = None
    breaker_failures_max: int = Field(10, ge=0, le=20)
    breaker_open_seconds: Seconds = 10
    _key: SecretStr | None = PrivateAttr(None)

    @field_validator("api_key_file")
    @classmethod
    def _key_can_be_read(cls, value: Path | None) -> Path | None:
        try:
            if value is not None:
                value.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(str(error.strerror)) from None
        except UnicodeDecodeError:
            raise ValueError("not UTF-8 text") from None
        return value

    @field_validator("api_key_env")
    @classmethod
    def _key_is_set(cls, value: str | None) -> str | None:
        if value is not None and not os.environ.get(value):
            name = value if VARIABLE.fullmatch(value) else "that is named here"
            raise ValueError(f"the variable {name} is not set")
        return value

    @model_validator(mode="after")
    def _says_where(self) -> "Upstream":
        if self.provider == "openai" and self.base_url is None:
            raise ValueError("provider openai needs a base_url")
        if self.provider == "langchain" and self.runnable is None:
            raise ValueError("provider langchain needs a runnable, as package.module:object")
        return self

    def model_post_init(self, _context: Any) -> None:
        # Once: who holds this catalog has the keys that it was checked with, whatever becomes of the files.
        if self.api_key_file is not None:
            self._key = SecretStr(self.api_key_file.read_text(encoding="utf-8").strip())
        elif self.api_key_env:
            self._key = SecretStr(os.environ[self.api_key_env])

    @property
    def continues(self) -> str:
        """How it is asked to go on behind a text: a name that `app.routing.prefill` knows."""
        if self.provider == "simulator":
            return "whole"
        if self.provider == "anthropic":
            return "native" if self.prefill else "none"
        return self.prefill if isinstance(self.prefill, str) else "assistant" if self.prefill else "none"

    @property
    def resume_strategy(self) -> Literal["continue", "replay", "fail"]:
        """How a stream whose worker died is taken up: who can goes on, others say it again and are compared."""
        if self.provider == "langchain":
            return self.resume or "fail"  # what a program did once it need not do again
        return self.resume or ("replay" if self.continues == "none" else "continue")

    @property
    def retries(self) -> int:
        """How often it is asked again; a program only if that was said, for the same reason."""
        return 0 if self.provider == "langchain" and "retries_max" not in self.model_fields_set else self.retries_max

    def api_key(self) -> str | None:
        """The key, from its file or variable; read at start and never logged."""
        return self._key.get_secret_value() if self._key else None


class Model(BaseModel):
    """A model's upstreams in order of preference. A bare list of upstreams stands for `{upstreams: [...]}`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upstreams: list[Upstream] = Field(min_length=1)
    after_first_token: Literal["continue", "splice", "reset", "fail"] = "fail"  # noqa: S105 - a token of text
    attempts_max: int = Field(6, ge=1, le=50)
    retry_share: float = Field(0.2, ge=0, le=10)
    answer_seconds: Seconds = 600
    hold_tokens: int = Field(0, ge=0, le=1000)
    hold_seconds: float = Field(0, ge=0, le=60)
    hedge_percentile: int | None = Field(None, ge=50, le=99)

    @model_validator(mode="before")
    @classmethod
    def _bare_list(cls, value: Any) -> Any:
        return {"upstreams": value} if isinstance(value, list) else value


class Catalog(BaseModel):
    """All models by name, of which the first answers requests that name none; tiers of callers; issuers of tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, Model] = Field(min_length=1)
    tiers: dict[str, Tier] = EXAMPLES
    issuers: list[Issuer] = []

    @model_validator(mode="after")
    def _tiers_are_there(self) -> "Catalog":
        for name in (LEAST_TIER, *(issuer.tier for issuer in self.issuers)):
            if name not in self.tiers:
                raise ValueError(f"tiers: {name} is missing")
        for what in ("name", "issuer"):
            if len({getattr(issuer, what) for issuer in self.issuers}) < len(self.issuers):
                raise ValueError(f"issuers: two have the same {what}")
        return self


# A simulated fault is there to be seen.
SIMULATOR_ONLY = Catalog.model_validate({"models": {"simulator": [{"provider": "simulator", "retries_max": 0}]}})
_adopted: Catalog | None = None


def adopt(catalog: Catalog) -> None:
    """Have this process, and those that it forks, use `catalog` whatever becomes of the file."""
    global _adopted  # noqa: PLW0603 - what a master hands to its workers has no other way through a fork
    _adopted = catalog


def adopted() -> Catalog | None:
    """What was adopted, if anything was."""
    return _adopted


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
