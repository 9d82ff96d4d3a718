"""The pages that document the API tell nobody else who reads them."""

import re
from html.parser import HTMLParser

import pytest

from tests.support.server import AppServer


class Page(HTMLParser):
    """Everything that a page makes a browser fetch or go to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"src", "href", "srcset", "data", "action", "poster", "spec-url", "content"} and value:
                self.fetched.append(value)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_page_names_no_other_address(server: AppServer, path: str) -> None:
    answer = server.get(path)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    text = answer.body.decode()
    named = [each for each in Page(text).fetched if not each.startswith("width=")]
    assert len(named) >= 2
    for address in named:
        assert re.match(r"/(?!/)", address), address
    assert not re.search(r"https?:|(?<![:\w])//\w", text)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_everything_that_a_page_names_is_there(server: AppServer, path: str) -> None:
    for address in Page(server.get(path).body.decode()).fetched:
        if address.startswith("/"):
            answer = server.get(address)
            assert answer.status == 200, address
            assert len(answer.body) > 100


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_a_browser_is_told_to_fetch_nothing_from_elsewhere(server: AppServer, path: str) -> None:
    """Whatever the bundled scripts may contain."""
    policy = server.get(path).headers["content-security-policy"]
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'self'"
    assert not re.search(r"https?:|\*", policy)


def test_the_assets_are_no_way_into_the_file_system(server: AppServer) -> None:
    for path in ("../", "%2e%2e/", "..%2f..%2f", "/etc/passwd"):
        assert server.get(f"/docs/assets/{path}").status == 404
