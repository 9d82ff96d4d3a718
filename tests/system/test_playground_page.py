"""The playground as a page: keyboards, screen readers, dark rooms, narrow screens, and nothing from anybody else."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.support.browser import Browser
from tests.support.chain import Chain, free_port
from tests.support.playground import PROMPT, batch_text, fill_in, send, wait_for_state, wait_for_tokens

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """The simulator, and a model whose upstream is not there."""
    config = tmp_path_factory.mktemp("config") / "models.yaml"
    upstream = f"{{provider: openai, base_url: 'http://127.0.0.1:{free_port()}/v1', model: x}}"
    config.write_text(f"models:\n  simulator:\n    - {{provider: simulator}}\n  absent:\n    - {upstream}\n")
    with Chain({"SLUICE_CONFIG": str(config)}, workers=1) as running:
        yield running


def test_an_error_is_shown_as_such(browser: Browser, chain: Chain) -> None:
    browser.open(f"{chain.url}/playground")
    browser.wait_for("document.querySelector('#model').options.length === 2")
    assert browser.driver.find_element("id", "simulator").is_displayed()
    browser.run("const model = document.querySelector('#model'); model.value = 'absent'")
    browser.run("document.querySelector('#model').dispatchEvent(new Event('change'))")
    assert not browser.driver.find_element("id", "simulator").is_displayed()
    browser.click("#send")
    wait_for_state(browser, "error")
    assert browser.text("#note").startswith("upstream_unreachable: ")
    assert browser.text("#log .refused .data").startswith("502, upstream_unreachable: ")


def test_it_is_used_by_keyboard_alone(browser: Browser, chain: Chain) -> None:
    browser.open(f"{chain.url}/playground")
    browser.wait_for("document.querySelector('#model').value === 'simulator'")
    order = []
    for _ in range(20):
        browser.press(Keys.TAB)
        focused = browser.driver.switch_to.active_element
        order.append(focused.get_attribute("id") or focused.text)
        outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", f"no visible focus on {order[-1]}"
        assert focused.accessible_name, f"no name for {order[-1]}"
        if order[-1] == "log":
            break
    fields = ["prompt", "model", "tokens-range", "tokens", "pace-range", "pace", "seed-range", "seed"]
    assert order[4:] == [*fields, "send", "stop", "cut", "copy", "text", "log"]

    browser.driver.find_element("id", "prompt").send_keys(Keys.CONTROL, "a")
    browser.press(PROMPT, Keys.TAB, Keys.TAB, Keys.TAB, Keys.CONTROL + "a" + Keys.NULL, "90")
    browser.press(Keys.SHIFT + Keys.TAB * 3)  # back to the prompt
    browser.press(Keys.CONTROL + Keys.ENTER)
    wait_for_tokens(browser, 10)
    browser.press(Keys.TAB * 10, Keys.SPACE)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "cut"
    wait_for_state(browser, "done")
    assert browser.text("#text") == batch_text(chain.url, tokens=90)
    assert browser.text("#connections") == "2"
    # A button that has no work keeps the focus: who pressed it is still there.
    assert browser.driver.switch_to.active_element.get_attribute("id") == "cut"


def test_screen_readers_hear_the_text_and_the_state(browser: Browser, chain: Chain) -> None:
    browser.open(f"{chain.url}/playground")
    tree = browser.cdp("Accessibility.getFullAXTree")["nodes"]
    live = {}
    for node in tree:
        properties = {item["name"]: item["value"].get("value") for item in node.get("properties", [])}
        if "live" in properties:
            live[node.get("name", {}).get("value", "") or node["role"]["value"]] = properties["live"]
    assert live["Answer"] == "polite"
    assert live["status"] == "polite"
    assert live.get("Events", "off") == "off"


def test_the_copied_command_gives_the_same_text(browser: Browser, chain: Chain) -> None:
    browser.cdp("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    fill_in(browser, chain.url, tokens=30, pace=200)
    browser.click("#copy")
    browser.wait_for("document.querySelector('#note').textContent === 'Copied.'")
    command = browser.run("return navigator.clipboard.readText()")
    output = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60).stdout
    payloads = [json.loads(line.removeprefix("data: ")) for line in output.splitlines() if line.startswith("data: ")]
    assert "".join(payload.get("token", "") for payload in payloads) == batch_text(chain.url, tokens=30)


def test_the_log_of_events_is_bounded(browser: Browser, chain: Chain) -> None:
    send(browser, chain.url, tokens=3000, pace=0)
    wait_for_state(browser, "done")
    assert browser.run("return document.querySelectorAll('#log li').length") == 500
    assert browser.text("#kept") == "last 500 of 3003"
    assert browser.text("#text") == batch_text(chain.url, tokens=3000)


@pytest.mark.parametrize("box", ["#log", "#text"])
def test_the_newest_is_in_sight_unless_the_reader_looks_elsewhere(box: str, browser: Browser, chain: Chain) -> None:
    to_end = f"const box = document.querySelector('{box}'); return box.scrollHeight - box.scrollTop - box.clientHeight"
    send(browser, chain.url, tokens=400, pace=0)
    wait_for_state(browser, "done")
    assert browser.run(to_end) <= 8
    browser.fill("#pace", 100)
    browser.click("#send")  # another stream in the same page
    wait_for_tokens(browser, 200)
    browser.wait_for(f"(() => {{ {to_end} }})() <= 8")
    browser.run(f"document.querySelector('{box}').scrollTop = 0")
    wait_for_tokens(browser, 300)
    assert browser.run(f"return document.querySelector('{box}').scrollTop") == 0


def test_it_is_dark_where_the_reader_wants_it_dark(browser: Browser, chain: Chain) -> None:
    browser.open(f"{chain.url}/playground")
    brightness = {}
    for scheme in ("light", "dark"):
        browser.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colours = browser.run("const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]")
        brightness[scheme] = [sum(map(int, re.findall(r"\d+", colour))) for colour in colours]
    assert brightness["light"][0] > 600 > 200 > brightness["light"][1]
    assert brightness["dark"][0] < 200 < 600 < brightness["dark"][1]


@pytest.mark.parametrize("width", [320, 800, 1280])
def test_nothing_is_cut_off_on_narrow_screens(width: int, browser: Browser, chain: Chain) -> None:
    mobile = width < 500
    browser.cdp("Emulation.setDeviceMetricsOverride", width=width, height=720, deviceScaleFactor=1, mobile=mobile)
    send(browser, chain.url, tokens=20, pace=100)
    wait_for_state(browser, "done")
    wider = """
        const all = [...document.querySelectorAll("body *")];
        return all.filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.id || e.tagName);
    """
    assert browser.run(wider) == []
    assert browser.run("return document.documentElement.scrollWidth") <= width


def test_nothing_inline_runs_in_it(browser: Browser, chain: Chain) -> None:
    browser.open(f"{chain.url}/playground")
    browser.run(
        """
        const script = document.createElement("script");
        script.textContent = "globalThis.ran = true";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "https://example.org/pixel.png";
        document.body.append(image);
        """
    )
    browser.wait_for("document.images[0].complete")
    assert browser.run("return globalThis.ran") is None
    assert len([line for line in browser.console if "Content Security Policy" in line["message"]]) == 2


@pytest.mark.parametrize(("page", "mark"), [("/docs", ".swagger-ui .opblock"), ("/redoc", "[data-section-id]")])
def test_the_documentation_asks_nobody_else(page: str, mark: str, browser: Browser, chain: Chain) -> None:
    browser.open(chain.url + page)
    browser.wait_for(f"document.querySelector('{mark}') !== null", f"{page} is drawn")
    time.sleep(1)  # what it would load late
    # ReDoc wants a logo from elsewhere; the page's policy refuses that before anything is sent.
    assert browser.hosts == {chain.url.removeprefix("http://")}
    # The policy allows no script and no style that stands in a page, but ReDoc's own by their hashes.
    refused = [line for line in browser.errors if "Content Security Policy" in line and "logo" not in line]
    assert refused == []


def get(url: str, headers: dict[str, str] | None = None) -> tuple[int, Message, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("", "text/html; charset=utf-8"),
        ("/playground.css", "text/css; charset=utf-8"),
        ("/playground.js", "text/javascript; charset=utf-8"),
        ("/sluice/sluice.js", "text/javascript; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
    ],
)
def test_each_file_has_its_type_a_policy_and_a_tag(path: str, content_type: str, chain: Chain) -> None:
    url = f"{chain.url}/playground{path}"
    status, headers, body = get(url)
    assert (status, headers["Content-Type"]) == (200, content_type)
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"
    assert int(headers["Content-Length"]) == len(body) > 0
    status, again, body = get(url, {"If-None-Match": f'"other", W/{headers["ETag"]}'})
    assert (status, again["ETag"], body) == (304, headers["ETag"], b"")
    assert get(url, {"If-None-Match": '"other"'})[0] == 200


@pytest.mark.parametrize("path", ["/missing.js", "/sluice/package.json", "/../playground.py", "/%2e%2e/playground.py"])
def test_what_is_not_of_the_page_is_not_there(path: str, chain: Chain) -> None:
    status, _, body = get(f"{chain.url}/playground{path}")
    assert status == 404
    assert json.loads(body)["error"]["code"] == "not_found"


def test_the_front_door_names_it(chain: Chain) -> None:
    assert json.loads(get(f"{chain.url}/")[2])["playground"] == "/playground"


def test_the_page_asks_for_nothing_at_another_address() -> None:
    """Also what no test makes it load."""
    static = Path(__file__).parents[2] / "app" / "api" / "static"
    files = [path for path in static.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", path.read_text())
        assert set(addresses) <= {"http://www.w3.org"}, path  # SVG's namespace, which nobody asks for
