"""A real browser, driven over its own debugging protocol: what a page says, shows and complains of.

    with browser() as chromium:
        seen = chromium.visit(path, Screen(390, 844, is_dark=True), "document.title")

Chromium speaks the DevTools protocol on a websocket; `aiohttp`, which the daemon needs anyway, is all it takes.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_PATIENCE_S = 60  # a loaded machine starts Chromium in 5 s
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # root in a container has no other way
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-port=0",
)


@dataclass(frozen=True, slots=True)
class Screen:
    """What the page is shown on."""

    width: int
    height: int
    is_dark: bool = False


PHONE, DESK = Screen(390, 844, is_dark=True), Screen(1280, 900)

# Expressions to be evaluated in a report.
WALK = """(async () => {
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const apart = (a, b) =>
    a.right <= b.left + 1 || b.right <= a.left + 1 || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
  const found = [];
  for (const plot of document.querySelectorAll(".plot")) {
    plot.scrollIntoView();
    for (let n = 0; n < 100 && !plot.querySelector(".main-svg"); n++) await pause(50);
    await pause(100);
    const texts = [...plot.querySelectorAll("text")].filter((t) => t.textContent && t.getBoundingClientRect().width);
    const boxes = texts.map((t) => t.getBoundingClientRect());
    found.push({
      series: plot.closest("article")?.querySelector("h3").textContent ?? "",
      section: plot.closest("section")?.querySelector("h2").textContent ?? "",
      lines: [...plot.querySelectorAll("path.js-line, .bars path")]
        .filter((path) => path.getAttribute("d").length > 20).length,
      marks: plot.querySelectorAll("path.point").length,
      shades: plot.querySelectorAll(".shapelayer path").length,
      overlapping: boxes.flatMap((a, i) => boxes.slice(i + 1).filter((b) => !apart(a, b))
        .map((b) => texts[i].textContent + " / " + texts[boxes.indexOf(b)].textContent)),
      outside: texts.filter((t) => t.getBoundingClientRect().right > innerWidth + 1).map((t) => t.textContent),
      inks: [...new Set(texts.map((t) => getComputedStyle(t).fill))],
    });
  }
  return found;
})()"""
"""Of each plot that the page draws: where it stands, what is drawn, and which texts overlap or are cut off."""
WIDTHS = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
PAPER = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"


@dataclass(slots=True)
class Seen:
    """What a visit brought."""

    answers: list[Any] = field(default_factory=list)
    """Of the expressions, in order."""
    errors: list[str] = field(default_factory=list)
    """Exceptions, failed loads, and what was written to the console as an error."""
    picture: bytes = b""
    """PNG of the screen in the end."""


def found() -> str:
    """Where the browser is; where there is none the test is skipped, or fails with TIDEWARDEN_REQUIRE_BROWSER=1."""
    for name in (os.environ.get("TIDEWARDEN_BROWSER", ""), *_NAMES):
        if name and (path := shutil.which(name)):
            return path
    if os.environ.get("TIDEWARDEN_REQUIRE_BROWSER") == "1":
        pytest.fail("TIDEWARDEN_REQUIRE_BROWSER=1, but no Chromium is in PATH", pytrace=False)
    pytest.skip("NOT TESTED IN A REAL BROWSER: no Chromium is in PATH")


@contextmanager
def browser() -> Iterator[Chromium]:
    """A Chromium of its own, gone with its profile in the end."""
    path = found()
    with tempfile.TemporaryDirectory(prefix="tidewarden-browser-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        with log.open("wb") as said:
            process = subprocess.Popen([path, *_OPTIONS, f"--user-data-dir={folder}"], stdout=said, stderr=said)
        try:
            yield Chromium(asyncio.run(_address(log)))
        finally:
            process.terminate()
            process.wait(timeout=_PATIENCE_S)


async def _address(log: Path) -> str:
    async with asyncio.timeout(_PATIENCE_S):
        while not (told := re.search(r"DevTools listening on (ws://\S+)", log.read_text(errors="replace"))):
            await asyncio.sleep(0.1)
    return told.group(1)


class Chromium:
    """A running browser.

    Args:
        address: Of its debugging websocket.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def visit(self, page: Path, screen: Screen, *expressions: str) -> Seen:
        """Open a file and evaluate JavaScript expressions (promises are awaited) once it has loaded."""
        return asyncio.run(asyncio.wait_for(self._visit(page, screen, expressions), _PATIENCE_S))

    async def _visit(self, page: Path, screen: Screen, expressions: tuple[str, ...]) -> Seen:
        async with aiohttp.ClientSession() as http, http.ws_connect(self._address, max_msg_size=0) as socket:
            tab = _Tab(socket)
            await tab.open()
            size, is_phone = {"width": screen.width, "height": screen.height}, screen.width < 600
            await tab.call("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=is_phone)
            scheme = {"name": "prefers-color-scheme", "value": "dark" if screen.is_dark else "light"}
            await tab.call("Emulation.setEmulatedMedia", features=[scheme])
            await tab.call("Page.navigate", url=page.resolve().as_uri())
            await tab.event("Page.loadEventFired")
            for expression in expressions:
                answer = await tab.call(
                    "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
                )
                assert "exceptionDetails" not in answer, answer["exceptionDetails"]
                tab.seen.answers.append(answer["result"].get("value"))
            tab.seen.picture = base64.b64decode((await tab.call("Page.captureScreenshot"))["data"])
            await tab.call("Page.close")
            return tab.seen


class _Tab:
    """One page: commands, and what it says by itself meanwhile."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers, self._events = socket, itertools.count(1), set[str]()
        self._session: dict[str, str] = {}
        self.seen = Seen()

    async def open(self) -> None:
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params, **self._session})
        while (message := await self._next()).get("id") != number:
            pass
        assert "error" not in message, message
        answer: dict[str, Any] = message["result"]
        return answer

    async def event(self, name: str) -> None:
        while name not in self._events:
            await self._next()

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._socket.receive_json()
        name, params = message.get("method", ""), message.get("params", {})
        self._events.add(name)
        if name == "Runtime.exceptionThrown":
            self.seen.errors.append(json.dumps(params["exceptionDetails"])[:2_000])
        elif (name == "Runtime.consoleAPICalled" and params["type"] == "error") or (
            name == "Log.entryAdded" and params["entry"]["level"] == "error"
        ):
            self.seen.errors.append(json.dumps(params)[:2_000])
        return message
