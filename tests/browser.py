"""A page in headless Chromium, driven over DevTools' pipe: real pointer and key events, what it logs, and what it asks for."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe""".split()
KEYS = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, " ": 32}


class Page:
    """One tab."""

    def __init__(self, write: int, read: int) -> None:
        self.output, self.input = os.fdopen(write, "wb"), os.fdopen(read, "rb")
        self.numbers, self.session = itertools.count(1), ""
        self.problems: list[str] = []
        """Errors, and everything that the console was told."""
        self.requests: list[str] = []
        """Addresses that the page asked for, without data: and its own file."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol."""
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.output.write(json.dumps(message).encode() + b"\0")
        self.output.flush()
        while True:
            found = self.receive()
            if found.get("id") == number:
                assert "error" not in found, (method, found["error"])
                return dict(found["result"])

    def receive(self) -> dict[str, Any]:
        """The next message; what it tells of problems and requests is kept."""
        parts = bytearray()
        while (byte := self.input.read(1)) != b"\0":
            assert byte, "the browser has ended"
            parts += byte
        found: dict[str, Any] = json.loads(parts)
        parameters = found.get("params", {})
        match found.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(parameters["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled":
                self.problems.append(json.dumps(parameters["args"])[:500])
            case "Log.entryAdded":
                self.problems.append(parameters["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(parameters["request"]["url"])
        return found

    def attach(self) -> None:
        """Take the first tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, address: str, width: int, height: int, *, dark: bool = False) -> None:
        """Load a page at a size, and wait until it has drawn itself."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=address)
        while self.receive().get("method") != "Page.loadEventFired":
            pass
        self.settle()

    def settle(self) -> None:
        """Wait for two frames: resize observers have run, and what they changed is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def run(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def center(self, selector: str) -> tuple[float, float]:
        """Where an element is, once it has been scrolled into view."""
        found = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return found[0], found[1]

    def hover(self, x: float, y: float) -> None:
        """Move the pointer."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        """Press and release the pointer's main button."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def press(self, key: str) -> None:
        """One key, or a character that is typed."""
        code = KEYS.get(key, ord(key[0].upper()))
        text = {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        same = {"key": key, "windowsVirtualKeyCode": code, "nativeVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **same)
        self.call("Input.dispatchKeyEvent", type="keyUp", **same)

    def type(self, text: str) -> None:
        """Characters where the focus is."""
        for character in text:
            self.press(character)
        self.settle()

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A screenshot as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own in a folder."""
    assert CHROMIUM is not None
    to_read, ours_to_write = os.pipe()
    ours_to_read, to_write = os.pipe()

    def descriptors() -> None:
        read, write = os.dup(to_read), os.dup(to_write)  # neither may be the other's place
        os.dup2(read, 3)
        os.dup2(write, 4)

    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}"],
        preexec_fn=descriptors,
        pass_fds=(3, 4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    page = Page(ours_to_write, ours_to_read)
    try:
        page.attach()
        yield page
    finally:
        with contextlib.suppress(OSError, AssertionError):
            page.session = ""
            page.call("Browser.close")
        process.kill()
        process.wait()
        page.output.close()
        page.input.close()
