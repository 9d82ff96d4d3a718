"""A headless Chromium with a profile of its own, driven by Debian's chromedriver."""

import json
import os
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from deploy.processes import die_with_parent

POLL_SECONDS = 0.05
WAIT_SECONDS_MAX = 20.0
PAGE_SECONDS_MAX = 30
END_SECONDS_MAX = 5

# Opens the address that it is given as an EventSource, and keeps what comes.
LISTEN = """
    globalThis.tokens = [];
    globalThis.opened = 0;
    globalThis.source = new EventSource(arguments[0]);
    source.addEventListener("open", () => (opened += 1));
    source.addEventListener("token", ({ data, lastEventId }) => tokens.push({ ...JSON.parse(data), lastEventId }));
    source.addEventListener("done", ({ data }) => (globalThis.done = JSON.parse(data)));
"""

ARGUMENTS = [
    "--headless=new",
    # Chromium refuses to run as root with its sandbox.
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
    "--disable-gpu",
    # A container's /dev/shm is small.
    "--disable-dev-shm-usage",
    # Not a port: Chromium then ends with its driver, however that ends.
    "--remote-debugging-pipe",
    # Nothing of Chromium's own goes out while tests watch what does.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,860",
]


class Browser:
    """Use as a context manager; leaving it ends every process of it.

    Args:
        profile: a folder that does not exist yet.
    """

    def __init__(self, profile: Path) -> None:
        programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
        for name, path in programs.items():
            if path is None:
                pytest.skip(f"{name} is not installed")
        self._options = ChromeOptions()
        self._options.binary_location = str(programs["chromium"])
        for argument in [*ARGUMENTS, f"--user-data-dir={profile}"]:
            self._options.add_argument(argument)
        self._options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        # With its path: Selenium would otherwise look for a driver by itself, also on the network.
        self._service = ChromeService(str(programs["chromedriver"]), popen_kw={"preexec_fn": die_with_parent()})
        self._network: list[dict[str, Any]] = []
        self._console: list[dict[str, Any]] = []

    def __enter__(self) -> "Browser":
        self.driver = Chrome(self._options, self._service)
        self.driver.set_page_load_timeout(PAGE_SECONDS_MAX)
        self.driver.set_script_timeout(PAGE_SECONDS_MAX)
        # Its own start page asks for things; that is not what tests look for.
        self.open("about:blank")
        self.driver.get_log("performance")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        top = psutil.Process(self._service.process.pid)
        processes = [top, *top.children(recursive=True)]
        self.driver.quit()
        for process in psutil.wait_procs(processes, END_SECONDS_MAX)[1]:
            process.kill()

    def open(self, url: str) -> None:
        """Until the page has loaded."""
        self.driver.get(url)

    def run(self, script: str, *arguments: object) -> Any:
        """What a piece of JavaScript `return`s in the page."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, expression: str, what: str = "", seconds: float = WAIT_SECONDS_MAX) -> Any:
        """Until a JavaScript expression is truthy in the page; its value."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(f"return {expression}")):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what or expression}\n{self._shown()}"
            time.sleep(POLL_SECONDS)
        return value

    def text(self, selector: str) -> str:
        """What the element says, white space and all."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def click(self, selector: str) -> None:
        """As a mouse does: it has to be visible."""
        self.driver.find_element("css selector", selector).click()

    def fill(self, selector: str, text: object) -> None:
        """Type into a field, instead of what it has."""
        field = self.driver.find_element("css selector", selector)
        field.clear()
        field.send_keys(str(text))

    def press(self, *keys: str) -> None:
        """To whatever has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def offline(self, offline: bool) -> None:
        """Take the page off its network, or bring it back."""
        conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.cdp("Network.emulateNetworkConditions", offline=offline, **conditions)

    def screenshot(self, path: Path) -> None:
        self.driver.save_screenshot(str(path))

    @property
    def requests(self) -> list[str]:
        """The URL of every request so far, in order, without what a page's policy refused before it was sent."""
        failed = self.network("Network.loadingFailed")
        refused = {event["requestId"] for event in failed if event.get("blockedReason") == "csp"}
        sent = self.network("Network.requestWillBeSent")
        return [event["request"]["url"] for event in sent if event["requestId"] not in refused]

    @property
    def hosts(self) -> set[str]:
        """Whom it asked; what the page has in itself (`data:`, `blob:`) is asked of nobody."""
        return {parts.netloc for parts in map(urlsplit, self.requests) if parts.scheme not in ("data", "blob")}

    @property
    def console(self) -> list[dict[str, Any]]:
        """Every line so far: `level`, `source` (`network` for the browser's own word on a request) and `message`."""
        self._console += self.driver.get_log("browser")
        return list(self._console)

    @property
    def errors(self) -> list[str]:
        """Every error and warning in the console, without those on single requests."""
        grave = ("SEVERE", "WARNING")
        return [line["message"] for line in self.console if line["level"] in grave and line["source"] != "network"]

    def network(self, method: str) -> list[dict[str, Any]]:
        """The parameters of every DevTools event of that name so far."""
        entries = self.driver.get_log("performance")
        self._network += [json.loads(entry["message"])["message"] for entry in entries]
        return [event["params"] for event in self._network if event["method"] == method]

    def _shown(self) -> str:
        return str(self.run("return document.body.innerText"))
