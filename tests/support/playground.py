"""The playground's page, as a person uses it."""

import json
import urllib.request

from tests.support.browser import Browser

# With what HTML, URLs, shells and JSON would each take for something else.
PROMPT = """What's "niño" & <b>why</b> + 50 %?"""
DONE_SECONDS_MAX = 60.0


def fill_in(browser: Browser, url: str, *, tokens: int, pace: float, seed: int = 7) -> None:
    browser.open(f"{url}/playground")
    browser.wait_for("document.querySelector('#model').value === 'simulator'")
    for field, value in {"#prompt": PROMPT, "#tokens": tokens, "#pace": pace, "#seed": seed}.items():
        browser.fill(field, value)


def send(browser: Browser, url: str, *, tokens: int, pace: float, seed: int = 7) -> None:
    fill_in(browser, url, tokens=tokens, pace=pace, seed=seed)
    browser.click("#send")


def wait_for_tokens(browser: Browser, count: int) -> None:
    browser.wait_for(f"Number(document.querySelector('#count').textContent) >= {count}", f"{count} tokens")


def wait_for_state(browser: Browser, state: str) -> None:
    browser.wait_for(f"document.querySelector('#state').textContent === '{state}'", state, DONE_SECONDS_MAX)


def batch_text(url: str, *, tokens: int, seed: int = 7) -> str:
    """What the same request says as one JSON answer."""
    simulator = {"seed": seed, "tokens": tokens, "tokens_per_second": 0, "first_token_ms": 0}
    body = json.dumps({"prompt": PROMPT, "model": "simulator", "simulator": simulator}).encode()
    request = urllib.request.Request(f"{url}/api/v1/generate", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["response"])


def connection_lines(browser: Browser) -> list[str]:
    """What the page's log says that its client did or met: connect, open, lost, offline."""
    script = "return [...document.querySelectorAll('#log .connection .name')].map((name) => name.textContent)"
    return list(browser.run(script))
