"""A real browser without a window, driven over its debugging socket."""

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
)
PATIENCE_S = 60.0


def browser_path() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One tab. `faults` are the errors that its console and its scripts have told."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.faults: list[str] = []
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(PATIENCE_S))
            if message.get("method") == "Runtime.exceptionThrown":
                self.faults.append(str(message["params"]["exceptionDetails"]))
            elif message.get("method") == "Log.entryAdded":
                entry = message["params"]["entry"]
                if entry["level"] == "error":
                    self.faults.append(f"{entry['text']} {entry.get('url', '')}")
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return dict(message["result"])

    def value(self, expression: str) -> Any:
        """The value of an expression; of a promise, what it is fulfilled with."""
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression: str) -> Any:
        """The value of an expression as soon as it is true."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            if found := self.value(expression):
                return found
            time.sleep(0.05)
        raise AssertionError(f"not true within {PATIENCE_S} s: {expression}; {self.faults}")

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def press(self, key: str) -> None:
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}
        known = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **known, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def choose_files(self, selector: str, *files: Path) -> None:
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(file) for file in files], nodeId=node)

    def screenshot(self, file: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def open_page(address: str, profile: Path, *flags: str) -> Iterator[Page]:
    """The page in a browser of its own, with further flags, which ends with the block. Without a
    browser on this machine the test is skipped.
    """
    browser = browser_path()
    if browser is None:
        pytest.skip("there is no browser")
    process = subprocess.Popen(
        [browser, *FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with connect(_tab_address(profile), max_size=None) as connection:
            page = Page(connection)
            page.call("Page.navigate", url=address)
            page.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")
            yield page
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _tab_address(profile: Path) -> str:
    from urllib.request import urlopen

    port_file = profile / "DevToolsActivePort"
    deadline_s = time.monotonic() + PATIENCE_S
    while not (port_file.exists() and port_file.read_text().count("\n")):
        assert time.monotonic() < deadline_s, "the browser did not start"
        time.sleep(0.05)
    port = port_file.read_text().splitlines()[0]
    with urlopen(f"http://127.0.0.1:{port}/json") as answer:
        tabs = json.load(answer)
    return next(str(tab["webSocketDebuggerUrl"]) for tab in tabs if tab["type"] == "page")
