"""A page in headless Chromium: opened from a file, measured, looked at and printed.

Chromium is spoken to in its own protocol (DevTools) over two pipes, so that there is no port, no driver and no library:
https://chromedevtools.github.io/devtools-protocol/

    python -m tests.lab.chromium drill.html docs/drill-report.png      a picture of a page, 900 pixels wide
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ANSWER_SECONDS = 30.0
PICTURE_WIDTH, PICTURE_HEIGHT = 900, 1440
LOCAL = ("file:", "data:", "about:", "chrome:", "chrome-error:")
# The protocol is read from descriptor 3 and written to descriptor 4.
BEHIND_PIPES = 'exec "$@" 3<&"$OPSPROOF_IN" 4>&"$OPSPROOF_OUT"'


@dataclass
class Page:
    """A page that is open.

    Attributes:
        requests: Every address that it asked for.
        complaints: What it wrote to the console as errors, breaches of its own policy among them.
    """

    _write: int
    _read: int
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _session: str = ""
    _events: list[dict[str, Any]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _rest: bytes = b""

    def call(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._await(lambda one: one.get("id") == number, method)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def attach(self) -> None:
        """Take the only tab."""
        (target, *_) = (
            one["targetId"] for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"
        )
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def quit(self) -> None:
        """End Chromium, and all processes of it."""
        self._session = ""
        with suppress(AssertionError, OSError):  # it may have ended already
            self.call("Browser.close")

    def open(self, path: Path) -> None:
        """Open a file, and wait until everything of it is there."""
        self._events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self._await(lambda one: one.get("method") == "Page.loadEventFired", "the page to load")

    def show(self, width: int, *, scheme: str = "light", media: str = "screen", height: int = 900) -> None:
        """Take a width in pixels, `light` or `dark`, and `screen` or `print`."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )

    def ask(self, script: str) -> Any:
        """Run a script in the page, and return what it returns."""
        answer = self.call("Runtime.evaluate", expression=f"(() => {{{script}}})()", returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def photograph(self, path: Path, most: int = 0) -> Path:
        """Write all of the page as a PNG, from its top to its end, or so many pixels of it at most."""
        height = self.ask("return document.documentElement.scrollHeight")
        height = min(height, most) if most else height
        width = self.ask("return window.innerWidth")
        shot = self.call(
            "Page.captureScreenshot",
            format="png",
            captureBeyondViewport=True,
            clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1},
        )
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def print(self, path: Path) -> Path:
        """Write the page as a PDF on A4."""
        paper = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(paper["data"]))
        return path

    def _await(self, is_it: Any, what: str) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            for message in self._events:
                if is_it(message):
                    self._events.remove(message)
                    return message
            self._receive(deadline, what)

    def _receive(self, deadline: float, what: str) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            assert selector.select(max(0.0, deadline - time.monotonic())), f"Chromium never came to {what}"
        data = os.read(self._read, 1 << 20)
        assert data, f"Chromium ended before {what}"
        *messages, self._rest = (self._rest + data).split(b"\0")
        for message in map(json.loads, messages):
            self._note(message)
            self._events.append(message)

    def _note(self, message: Mapping[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(parameters["exceptionDetails"]["text"])

    @property
    def foreign_requests(self) -> list[str]:
        """Everything that it asked for and that was not in the file."""
        return [one for one in self.requests if not one.startswith(LOCAL)]


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Start Chromium with a profile of its own in a new folder; it has ended when the block ends.

    A machine without it skips the test.
    """
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium here: apt-get install --no-install-recommends chromium")
    profile = folder / "chromium"
    profile.mkdir()
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    command = [
        *("bash", "-c", BEHIND_PIPES, "chromium", program, "--headless", "--remote-debugging-pipe"),
        *("--no-first-run", "--disable-gpu", "--disable-extensions", "--disable-background-networking"),
        *("--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={profile}"),
        # Chromium refuses its sandbox to root, who runs the tests in a container.
        *(("--no-sandbox",) if os.geteuid() == 0 else ()),
        "about:blank",
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, "HOME": str(profile), "OPSPROOF_IN": str(theirs_in), "OPSPROOF_OUT": str(theirs_out)},
        pass_fds=(theirs_in, theirs_out),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    page = Page(ours_out, ours_in)
    try:
        page.attach()
        yield page
    finally:
        page.quit()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_out)
        os.close(ours_in)
        shutil.rmtree(profile, ignore_errors=True)


def main() -> None:
    """Take a picture of a page."""
    page_file, picture = map(Path, sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="opsproof-chromium-") as folder, browser(Path(folder)) as page:
        page.show(PICTURE_WIDTH)
        page.open(page_file.resolve())
        # As much as a reader of a README looks at.
        page.photograph(picture, most=PICTURE_HEIGHT)


if __name__ == "__main__":
    main()
