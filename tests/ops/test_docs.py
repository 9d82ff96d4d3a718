"""What people read: complete, up to date by the code, and with links that lead somewhere."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

import app.errors
from app.api import aliases
from app.api.errors import _CODES
from app.catalog import Model, Upstream
from app.errors import SluiceError
from app.issuers import Issuer
from app.settings import Settings
from app.streams import registry, sse
from app.tiers import Tier
from app.timeouts import INEQUALITIES, ledger
from app.version import VERSION
from scripts.regions import filled
from tests.support.application import application

HOME = Path(__file__).resolve().parents[2]
# Folders that tools make, here or in a clone.
MADE = {".venv", ".tools", "node_modules", "var", ".git", ".hypothesis"}


def documents() -> Iterator[Path]:
    for folder, folders, names in os.walk(HOME):
        folders[:] = sorted(set(folders) - MADE)
        yield from (Path(folder, name).relative_to(HOME) for name in sorted(names) if name.endswith(".md"))


DOCUMENTS = list(documents())
# Whoever else is named in a document would be contacted by those who follow it.
HOSTS = {"127.0.0.1", "nginx.org", "html.spec.whatwg.org"}
# Names of labels and APIs, which only look like hosts.
HOSTS |= {"app.kubernetes.io", "external.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"}
HOSTS |= {"gateway.networking.k8s.io", "acme.cert-manager.io"}
# Services of a cluster, as components expect them.
HOSTS |= {"prometheus-operated.monitoring", "otel-collector.observability"}


def read(name: str | Path) -> str:
    return (HOME / name).read_text(encoding="utf-8")


README, ARCHITECTURE = read("README.md"), read("ARCHITECTURE.md")
SETTINGS, PROTOCOL = read("deploy/SETTINGS.md"), read("app/api/PROTOCOL.md")


def links(document: Path) -> Iterator[str]:
    """Targets of the document's links, outside code."""
    text = re.sub(r"```.*?```|`[^`]*`(?!\])", "", read(document), flags=re.DOTALL)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(document: Path) -> None:
    for target in links(document):
        path, _, anchor = target.partition("#")
        if "://" in path:
            continue
        found = (HOME / document.parent / path).resolve() if path else HOME / document
        assert found.is_relative_to(HOME), target
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_a_document_names_no_host_of_strangers_and_no_path_of_one_machine(document: Path) -> None:
    text = read(document)
    hosts = set(re.findall(r"\bhttps?://([\w.-]+)", text))
    hosts |= set(re.findall(r"\b(?:[\w-]+\.)+(?:org|com|io|net|dev)\b", text))
    assert hosts <= HOSTS
    assert not re.findall(r"(?<![\w.$}/])/(?:home|root|work|Users|mnt|tmp)/", text)


def test_generated_parts_are_what_the_code_says() -> None:
    command = [sys.executable, "-m", "scripts.generate", "--check"]
    result = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_part_that_changed_is_noticed_and_written() -> None:
    text = "before\n<!-- begin words: written by make generate -->\nold\n<!-- end words -->\nafter\n"
    written = filled(text, {"words": r"new \1"})
    assert r"new \1" in written
    assert "old" not in written
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert filled(written, {"words": r"new \1"}) == written
    with pytest.raises(ValueError, match="others"):
        filled(text, {"others": ""})


def test_every_setting_has_its_row() -> None:
    for name, field in Settings.model_fields.items():
        variable = name.upper() if name in {"port", "workers"} else f"SLUICE_{name.upper()}"
        row = next((line for line in SETTINGS.splitlines() if line.startswith(f"| `{variable}` |")), "")
        assert row.endswith(f"| {field.description} |"), variable


def test_every_wait_and_every_inequality_has_its_row() -> None:
    for name, seconds in ledger().items():
        assert f"| `{name}` | {seconds:g} |" in SETTINGS
    for (shorter, _), (longer, _), consequence in INEQUALITIES:
        assert f"| `{shorter}` < `{longer}` | {consequence} |" in SETTINGS


@pytest.mark.parametrize("name", [*Model.model_fields, *Upstream.model_fields])
def test_every_key_of_the_models_file_has_its_row_with_its_default(name: str) -> None:
    field = (Model.model_fields | Upstream.model_fields)[name]
    row = next(line for line in SETTINGS.splitlines() if line.startswith(f"| `{name}` |"))
    default = row.split("|")[2].strip().strip("`")
    if field.default is not None and not field.is_required():
        known = f"{field.default:g}" if type(field.default) in {int, float} else str(field.default)
        assert default == (known.lower() if type(field.default) is bool else known)


@pytest.mark.parametrize("name", [*Tier.model_fields, *Issuer.model_fields])
def test_every_key_of_tiers_and_issuers_has_its_row(name: str) -> None:
    assert f"\n| `{name}` |" in SETTINGS


def test_every_error_code_has_its_row() -> None:
    codes = {
        each.code for each in vars(app.errors).values() if isinstance(each, type) and issubclass(each, SluiceError)
    }
    codes |= {app.errors.UpstreamRejected(status, "").code for status in range(400, 600)}
    codes |= {*_CODES.values(), registry.CANCELLED.code, sse.SHUTTING_DOWN.code, sse.EXPIRED.code, sse.RESTARTED.code}
    mapped = re.search(r"\$sluice_error_code \{(.*?)\}", read("nginx/snippets/maps.conf"), re.DOTALL)
    assert mapped
    codes |= set(re.findall(r"\w+ +(\w+);", mapped[1]))
    missing = {code for code in codes if f"| `{code}` |" not in PROTOCOL}
    assert not missing


def test_every_event_of_a_stream_is_described() -> None:
    names = set(re.findall(r"sse\(\"(\w+)\"|b?'event: (\w+)", read("app/streams/sse.py")))
    spoken = {name for pair in names for name in pair if name}
    assert spoken == {"token", "done", "error", "reset", "reconnect", "notice"}
    assert all(f"| `{name}` |" in PROTOCOL for name in spoken)


def test_every_module_is_on_the_map() -> None:
    for path in (HOME / "app").rglob("*.py"):
        name = path.relative_to(HOME)
        assert not path.stat().st_size or f"]({name}) | " in ARCHITECTURE, name


def test_files_that_the_architecture_speaks_of_are_there() -> None:
    written = ARCHITECTURE.split("<!-- begin modules")[0]
    for name in set(re.findall(r"`([\w/]+\.(?:py|yaml|template|md))`", written)):
        assert any(place.exists() for place in (HOME / name, *HOME.glob(f"app/{name}"), *HOME.glob(f"app/*/{name}"))), (
            name
        )


def test_the_routes_are_those_of_the_application() -> None:
    table = README.split("## Routes\n")[1].split("\n## ")[0]
    told = {(method, path.split("?")[0]) for method, path in re.findall(r"`(GET|POST|DELETE) ([^`]+)`", table)}
    served = {("GET", "/openapi.json")}
    unsaid = {getattr(route, "path", "") for route in aliases.router.routes}
    for context in iter_route_contexts(application().routes):
        route = context.original_route
        if isinstance(route, APIRoute) and str(context.path) not in unsaid:
            served |= {(method, re.sub(r":\w+}", "}", str(context.path))) for method in route.methods or ()}
    # What both versions have is told once.
    twins = {(method, path) for method, path in served if (method, path.replace("/v2/", "/v1/")) in served}
    served -= {(method, path) for method, path in twins - told if path.startswith("/api/v2/")}
    own_files = {("GET", "/playground/{name}"), ("GET", "/docs/swagger.js"), ("GET", "/docs/redoc.css")}
    # The pages' own files are not for people to ask for, and HEAD is what GET says without saying it.
    assert told | own_files == {(method, path) for method, path in served if method != "HEAD"}


def test_the_changelog_begins_with_this_version() -> None:
    assert re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)[0] == VERSION


def test_every_decision_is_a_page_in_the_index_with_its_four_parts() -> None:
    pages = sorted((HOME / "deploy/decisions").glob("0*.md"))
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    index = read("deploy/decisions/README.md")
    for page in pages:
        text = page.read_text(encoding="utf-8")
        title = re.match(r"# \d{4} (.+)\n", text)
        assert title
        assert f"| [{page.name[:4]}]({page.name}) | {title[1]} |" in index
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Alternatives"]


def test_every_command_that_a_document_names_is_a_target() -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    for document in DOCUMENTS:
        assert set(re.findall(r"`(?:[\w=./-]+ )*make ([a-z-]+)`", read(document))) <= targets, document


def test_each_row_of_what_soak_saw_has_a_cell_for_each_head() -> None:
    rows = [line for line in read("tests/soak/RESULTS.md").splitlines() if line.startswith("|")]
    cells = 0
    for head, row in pairwise(rows):
        if row.startswith("|---"):
            cells = head.count("|")
        assert row.count("|") == cells or row.startswith(("| what", "| who")), row
