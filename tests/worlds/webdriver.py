"""A Chromium that is driven: clicks, keys and scripts through chromedriver (WebDriver, W3C), where it is installed."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from browser import BROWSER

DRIVER = shutil.which("chromedriver") if BROWSER else None

# No proxy of the environment stands between us and this machine.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Browser:
    """One session."""

    def __init__(self, address: str, flags: tuple[str, ...]) -> None:
        self._base = address
        options = {"binary": BROWSER, "args": ["--headless=new", "--no-sandbox", "--disable-gpu", *flags]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._base += f"/session/{made['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with _DIRECT.open(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {body}: {json.load(error)['value']['message']}") from None

    def open(self, address: str) -> None:
        self._call("POST", "/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a script returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def until(self, expression: str, seconds: float = 30) -> Any:
        """Return the first value of an expression that is not false."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            found = self.run(f"return {expression}")
            if found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"never came true: {expression}")

    def keys(self, selector: str, text: str) -> None:
        """Type into the first element that a selector finds."""
        self._call("POST", f"/element/{self._element(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        self._call("POST", f"/element/{self._element(selector)}/click", {})

    def _element(self, selector: str) -> str:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        return str(next(iter(found.values())))

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Show the page as on a screen of that size, in dark or light colours."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.tool("Emulation.setDeviceMetricsOverride", metrics)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.tool("Emulation.setEmulatedMedia", {"features": scheme})

    def tool(self, command: str, parameters: Any) -> Any:
        """Return the answer to a command of the browser's developer tools."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self) -> list[str]:
        """Return what the console has of errors since it was last asked: also what the page's policy blocked."""
        entries = self._call("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def picture(self) -> bytes:
        """Return the page as PNG."""
        return base64.b64decode(self._call("GET", "/screenshot"))

    def quit(self) -> None:
        self._call("DELETE", "")


@contextmanager
def driven(*flags: str) -> Iterator[Browser]:
    """Run a browser; quit it afterwards."""
    assert DRIVER is not None
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert driver.stdout is not None
    try:
        ports = (re.search(r"successfully on port (\d+)", line) for line in driver.stdout)
        port = next(found[1] for found in ports if found)
        browser = Browser(f"http://127.0.0.1:{port}", flags)
        try:
            yield browser
        finally:
            browser.quit()
    finally:
        driver.terminate()
        driver.wait(10)
        driver.stdout.close()
