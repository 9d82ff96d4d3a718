"""The models file: what it may say, and how a mistake in it is told to whoever made it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from app.catalog import CatalogError, load_catalog

EXAMPLE = """\
models:
  gpt-x:
    after_first_token: splice          # continue | splice | reset | fail
    upstreams:
      - {provider: openai, base_url: "http://127.0.0.1:9100/v1", model: gpt-x, api_key_env: ORIGIN_KEY,
         connect_seconds: 2, first_token_seconds: 10, idle_seconds: 15, total_seconds: 300, concurrency_max: 512, retries_max: 2}
      - {provider: simulator}
"""  # noqa: E501 - as the documentation has it


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "models.yaml"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that the example names."""
    monkeypatch.setenv("ORIGIN_KEY", "sk-1")


def refusal(path: Path) -> str:
    """The one line that the start ends with."""
    with pytest.raises(CatalogError) as raised:
        load_catalog(path)
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"SLUICE_CONFIG: {path}")
    return message.removeprefix(f"SLUICE_CONFIG: {path}")


def test_without_a_file_there_is_the_simulator() -> None:
    catalog = load_catalog(None)
    assert list(catalog.models) == ["simulator"]
    assert [upstream.provider for upstream in catalog.models["simulator"].upstreams] == ["simulator"]


def test_the_documented_example_says_what_it_seems_to(file: Path) -> None:
    file.write_text(EXAMPLE)
    model = load_catalog(file).models["gpt-x"]
    first, second = model.upstreams
    assert model.after_first_token == "splice"
    assert (first.provider, str(first.base_url), first.model) == ("openai", "http://127.0.0.1:9100/v1", "gpt-x")
    assert (first.connect_seconds, first.first_token_seconds, first.idle_seconds) == (2, 10, 15)
    assert (first.total_seconds, first.concurrency_max, first.retries_max) == (300, 512, 2)
    assert second.provider == "simulator"
    assert (first.api_key(), second.api_key()) == ("sk-1", None)


def test_a_bare_list_stands_for_its_upstreams(file: Path) -> None:
    file.write_text("models:\n  a:\n  - {provider: simulator}\n  - {provider: simulator, idle_seconds: 3}\n")
    model = load_catalog(file).models["a"]
    assert [upstream.idle_seconds for upstream in model.upstreams] == [30, 3]
    assert model.after_first_token == "fail"


def test_everything_but_the_provider_has_a_default(file: Path) -> None:
    file.write_text("models: {a: [{provider: simulator}], b: [{provider: openai, base_url: 'http://h/v1'}]}")
    models = load_catalog(file).models
    assert list(models) == ["a", "b"]
    assert models["b"].upstreams[0].model is None


def test_a_key_can_be_in_a_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-2\n")
    file.write_text(f"models: {{a: [{{provider: simulator, api_key_file: {tmp_path / 'key'}}}]}}")
    assert load_catalog(file).models["a"].upstreams[0].api_key() == "sk-2"


def test_a_variable_without_a_key_is_told_by_its_name(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upstream would answer every request with 401, hours after the start."""
    for value in (None, ""):
        monkeypatch.setenv("ORIGIN_KEY", value) if value is not None else monkeypatch.delenv("ORIGIN_KEY")
        file.write_text("models:\n  a:\n  - provider: simulator\n    api_key_env: ORIGIN_KEY\n")
        told = refusal(file)
        assert told.startswith(", line 4: models.a.upstreams.0.api_key_env: ")
        assert "the variable ORIGIN_KEY is not set" in told


def test_a_key_in_the_place_of_its_variables_name_is_not_told(file: Path) -> None:
    file.write_text("models:\n  a:\n  - provider: simulator\n    api_key_env: sk-canary\n")
    assert "canary" not in refusal(file)


def test_a_key_is_the_one_that_was_read_whatever_becomes_of_its_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-2\n")
    file.write_text(f"models: {{a: [{{provider: simulator, api_key_file: {tmp_path / 'key'}}}]}}")
    catalog = load_catalog(file)
    (tmp_path / "key").unlink()
    assert catalog.models["a"].upstreams[0].api_key() == "sk-2"
    assert "sk-2" not in repr(catalog)


@pytest.mark.parametrize(
    ("upstream", "continues", "resume"),
    [
        ("provider: simulator", "whole", "continue"),
        ("provider: openai, base_url: 'http://h/v1'", "none", "replay"),
        ("provider: openai, base_url: 'http://h/v1', prefill: true", "assistant", "continue"),
        ("provider: openai, base_url: 'http://h/v1', prefill: vllm", "vllm", "continue"),
        ("provider: openai, base_url: 'http://h/v1', prefill: vllm, resume: fail", "vllm", "fail"),
        ("provider: anthropic", "none", "replay"),
        ("provider: anthropic, prefill: true", "native", "continue"),
    ],
)
def test_who_can_go_on_behind_a_text_also_takes_streams_up_like_that(
    upstream: str, continues: str, resume: str, file: Path
) -> None:
    file.write_text(f"models: {{a: [{{{upstream}}}]}}")
    found = load_catalog(file).models["a"].upstreams[0]
    assert (found.continues, found.resume_strategy) == (continues, resume)


@pytest.mark.parametrize(("kind", "why"), [("missing", "No such file or directory"), ("folder", "Is a directory")])
def test_a_key_that_cannot_be_read_is_told_at_the_start(kind: str, why: str, file: Path, tmp_path: Path) -> None:
    """And not by a traceback of the first worker."""
    (tmp_path / "folder").mkdir()
    file.write_text(f"models:\n  a:\n  - provider: simulator\n    api_key_file: {tmp_path / kind}\n")
    told = refusal(file)
    assert told.startswith(", line 4: models.a.upstreams.0.api_key_file: ")
    assert why in told


def test_a_file_that_refers_to_itself_is_no_endless_loop(file: Path) -> None:
    file.write_text("models: &m\n  a: *m\n")
    assert refusal(file).startswith(", line ")


def test_a_list_may_be_used_twice(file: Path) -> None:
    file.write_text("models:\n  a: &both [{provider: simulator}, {provider: simulator}]\n  b: *both\n")
    assert [len(model.upstreams) for model in load_catalog(file).models.values()] == [2, 2]


MISTAKES = {
    "an unknown key": (
        """\
        models:
          a:
            upstreams:
              - provider: simulator
                idle_second: 3
        """,
        5,
        "models.a.upstreams.0.idle_second: ",
    ),
    "an unknown key of the file": ("models:\n  a: [{provider: simulator}]\nmodel: x\n", 3, "model: "),
    "an unknown key of a model": (
        "models:\n  a:\n    upstreams: [{provider: simulator}]\n    after_token: fail\n",
        4,
        "models.a.after_token: ",
    ),
    "a wrong type": (
        "models:\n  a:\n  - provider: simulator\n    idle_seconds: soon\n",
        4,
        "models.a.upstreams.0.idle_seconds: ",
    ),
    "a number out of its range": (
        "models:\n  a:\n  - {provider: simulator}\n  - provider: simulator\n    retries_max: 11\n",
        5,
        "models.a.upstreams.1.retries_max: ",
    ),
    "a wait of nothing": ("models:\n  a:\n  - provider: simulator\n    connect_seconds: 0\n", 4, "connect_seconds: "),
    "an unknown provider": ("models:\n  a:\n  - provider: oracle\n", 3, "models.a.upstreams.0.provider: "),
    "a price below nothing": (
        "models:\n  a:\n  - provider: simulator\n    price: {input: -1}\n",
        4,
        "models.a.upstreams.0.price.input: ",
    ),
    "a price of something else": (
        "models:\n  a:\n  - provider: simulator\n    price:\n      cached: 1\n",
        5,
        "models.a.upstreams.0.price.cached: ",
    ),
    "no provider": ("models:\n  a:\n  - {provider: simulator}\n  - model: x\n", 4, "models.a.upstreams.1.provider: "),
    "no base_url": ("models:\n  a:\n  - provider: simulator\n  - provider: openai\n", 4, "base_url"),
    "a base_url that is none": ("models:\n  a:\n  - provider: openai\n    base_url: h:80/v1\n", 4, "base_url: "),
    "a list of nothing": ("models:\n  a: []\n", 2, "models.a.upstreams: "),
    "a model of nothing": ("models:\n  a:\n", 2, "models.a: "),
    "models of nothing": ("models: {}\n", 1, "models: "),
    "no models": ("# nothing yet\nmodel: {}\n", 2, "models: "),
    "an empty file": ("", 1, "(top level): "),
    "only a comment": ("# nothing yet\n", 1, "(top level): "),
    "a list": ("- models\n", 1, "(top level): "),
    "a word": ("models\n", 1, "(top level): "),
    "a bracket that is never closed": ("models:\n  a: [{provider: simulator}\n\n", 4, ""),
    "a tab": ("models:\n\ta: 1\n", 2, ""),
    "a colon too many": ("models:\n  a: b: c\n", 2, ""),
    "two documents": ("models: {}\n---\nmodels: {}\n", 2, ""),
    "an object of Python": ("models:\n  a: !!python/object/apply:os.getcwd []\n", 2, ""),
    "a character that YAML forbids": ("models:\n  a: [{provider: simulator}]\n# \x00\n", 3, ""),
    "a key twice": ("models:\n  a:\n  - provider: simulator\n    model: x\n    model: y\n", 5, "model"),
    "a model twice": ("models:\n  a: [{provider: simulator}]\n  a: [{provider: simulator}]\n", 3, "a"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_line_and_key(name: str, file: Path) -> None:
    text, line, key = MISTAKES[name]
    file.write_text(dedent(text))
    told = refusal(file)
    assert told.startswith(f", line {line}: "), told
    assert key in told
    assert len(told) > len(f", line {line}: {key}") + 5, "it also says what is wrong"


def test_a_file_that_is_not_there_is_told(file: Path) -> None:
    assert refusal(file) == ": No such file or directory"


def test_a_directory_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path) == ": Is a directory"


@pytest.fixture
def without_rights() -> Iterator[None]:
    """As somebody else, where we are root, whom no file refuses."""
    if os.geteuid() == 0:
        os.seteuid(65_534)
        yield
        os.seteuid(0)
    else:
        yield


def test_a_file_that_may_not_be_read_is_told(file: Path, request: pytest.FixtureRequest) -> None:
    file.write_text(EXAMPLE)
    file.chmod(0)
    request.getfixturevalue("without_rights")
    assert refusal(file) == ": Permission denied"


@pytest.mark.parametrize("data", [b"models: \xff", EXAMPLE.encode("utf-16"), b"models:\n  \xe9: []"])
def test_text_that_is_not_utf_8_is_told(data: bytes, file: Path) -> None:
    file.write_bytes(data)
    assert refusal(file) == ": not UTF-8 text"


def test_a_file_may_begin_with_a_byte_order_mark(file: Path) -> None:
    file.write_text(EXAMPLE, encoding="utf-8-sig")
    assert list(load_catalog(file).models) == ["gpt-x"]


def test_a_file_means_the_same_in_every_locale(file: Path) -> None:
    """A service manager starts us with LC_ALL=C, where Python would read ASCII."""
    file.write_text("models: {modèle-水: [{provider: simulator}]}", encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from app.catalog import load_catalog;"
        "print(ascii(list(load_catalog(Path(sys.argv[1])).models)))"
    )
    environment = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": os.getcwd()}
    ran = subprocess.run([sys.executable, "-c", code, str(file)], env=environment, capture_output=True, text=True)
    assert ran.stdout.strip() == ascii(["modèle-水"]), ran.stderr


def test_a_key_is_not_told(file: Path) -> None:
    """Somebody may write the key itself where its variable's name belongs; the log must not have it."""
    file.write_text("models:\n  a:\n  - provider: simulator\n    api_key: sk-canary\n")
    assert "canary" not in refusal(file)
