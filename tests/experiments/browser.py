"""NNI's web UI in headless Chromium."""

import json
import re
import shutil
import subprocess
import time
import urllib.request

import pytest
from websockets.sync.client import connect

needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="no chromium here: apt-get install chromium"
)


def address_in(line):
    """The address of the web UI, with its token, in what a script prints."""
    return re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)[0]


class Browser:
    """Headless Chromium, by its own protocol."""

    def __init__(self, folder, *options):
        command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", *options]
        command += [f"--user-data-dir={folder}", "--window-size=1500,1600", "about:blank"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if match := re.search(r"DevTools listening on ws://([^/]+)/", line):
                break
        with urllib.request.urlopen(f"http://{match[1]}/json") as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self.socket, self.calls = connect(page["webSocketDebuggerUrl"], max_size=None), 0

    def call(self, method, **params):
        self.calls += 1
        self.socket.send(json.dumps({"id": self.calls, "method": method, "params": params}))
        while (message := json.loads(self.socket.recv(timeout=60))).get("id") != self.calls:
            pass
        return message["result"]

    def js(self, code):
        """What an expression is, once it is something."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
            if value := answer["result"].get("value"):
                return value
            time.sleep(0.05)
        raise AssertionError(f"{code} is still nothing on a page that says: {self.js('document.body.innerText')}")

    def open(self, url, sign):
        """Text of a page, once `sign` is on it."""
        self.call("Page.navigate", url=url)
        self.js(f"document.body && document.body.innerText.includes({json.dumps(sign)})")
        return self.js("document.body.innerText")

    def close(self):
        self.socket.close()
        self.process.kill()
        self.process.wait()


# The data of the chart in the open dialog, which is drawn on a canvas: from the page's own state.
CHART = """(() => {
  let element = document.querySelector('[role=dialog] canvas');
  const own = (e) => Object.keys(e).find((k) => /^__react(InternalInstance|Fiber)/.test(k));
  while (element && !own(element)) element = element.parentElement;
  let node = element && element[own(element)];
  while (node && !(node.memoizedProps && node.memoizedProps.option)) node = node.return;
  return node && node.memoizedProps.option.series.length && node.memoizedProps.option.series;
})()"""
