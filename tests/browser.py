"""A headless Chromium, driven over its own DevTools protocol: no library, two pipes, JSON messages that end in NUL."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
PATIENCE = 60.0  # seconds for anything to come about, on a busy machine
KEYS = {"Enter": 13, "Tab": 9, "End": 35, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def find_chromium() -> str | None:
    """Its path, from $CHROMIUM or by its usual names."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A tab."""

    def __init__(self, orders: int, replies: int) -> None:
        """orders, replies: file descriptors of the pipes to and from the browser."""
        self.orders, self.replies = orders, os.fdopen(replies, "rb")
        self.number, self.rest, self.session = 0, b"", None
        self.events: list[dict[str, Any]] = []  # what the browser told unasked
        target = self.order("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.order("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.order(f"{domain}.enable")

    def order(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.orders, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self.number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return reply["result"]
            self.events.append(reply)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            data = self.replies.read1(1 << 16)
            assert data, "the browser has gone"
            self.rest += data
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        result = self.order("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Until the expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < end, f"never came true: {script}; the page: {self.run('document.body.innerText')}"
            time.sleep(0.02)

    def open(self, address: str, width: int = 1000, height: int = 800, dark: bool = False) -> None:
        self.order("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.order("Emulation.setEmulatedMedia", features=scheme)
        for place in ("about:blank", address):  # else the old page could be taken for the new one
            self.order("Page.navigate", url=place)
            self.wait_for(f"document.readyState === 'complete' && location.href === {json.dumps(place)}")

    def type(self, text: str) -> None:
        """Into whatever has the focus."""
        self.order("Input.insertText", text=text)

    def press(self, *keys: str) -> None:
        for key in keys:
            facts = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
            if key == "Enter":
                facts["text"] = "\r"
            self.order("Input.dispatchKeyEvent", type="keyDown", **facts)
            self.order("Input.dispatchKeyEvent", type="keyUp", **facts)

    def picture(self) -> bytes:
        """A PNG of the whole page, as long as it is."""
        size = self.order("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.order("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def requests(self) -> list[str]:
        """The addresses that the page has asked for."""
        sent = (event for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[str]:
        """Scripts that failed, and what the browser has refused or warned of."""
        self.run("0")  # fetches what is on its way
        thrown = [e["params"]["exceptionDetails"] for e in self.events if e.get("method") == "Runtime.exceptionThrown"]
        logged = [e["params"]["entry"] for e in self.events if e.get("method") == "Log.entryAdded"]
        return [json.dumps(thing, ensure_ascii=False) for thing in (*thrown, *logged)]


@contextlib.contextmanager
def chromium(program: str) -> Iterator[Page]:
    """A browser without a network but this machine's, and its tab."""
    our_orders, orders = os.pipe()
    replies, our_replies = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        flags += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", "--no-first-run"]

        def take_pipes() -> None:  # the browser reads from descriptor 3 and writes to 4
            low, high = os.dup(our_orders), os.dup(our_replies)
            os.dup2(low, 3)
            os.dup2(high, 4)

        process = subprocess.Popen(
            [program, *flags],
            preexec_fn=take_pipes,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(our_orders)
        os.close(our_replies)
        try:
            yield Page(orders, replies)
        finally:
            process.terminate()
            process.wait(timeout=PATIENCE)
            os.close(orders)
