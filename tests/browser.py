"""A headless browser that looks at a page: what it says, fetches, fails to show, and how wide it is."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
#: no GPU, no sandbox (a container's root has none), no requests of the browser's own, no names looked up
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--enable-logging=stderr",
    "--v=0",
)
#: the page in frames of several widths, and what they hold once all has been loaded
PAGE = """<!doctype html><meta charset="utf-8">{frames}<script>
addEventListener("load", () => {{
  const frames = [...document.querySelectorAll("iframe")], inner = frames[0].contentDocument
  const images = [...inner.images]
  const excess = frame => frame.contentDocument.documentElement.scrollWidth - frame.contentWindow.innerWidth
  document.body.insertAdjacentHTML("beforeend", `<output>${{JSON.stringify({{
    pictures: images.length,
    broken: images.filter(image => !(image.complete && image.naturalWidth)).length,
    excess: Math.max(...frames.map(excess)),
    scripts: inner.scripts.length,
  }})}}</output>`)
}})
</script>"""
FRAME = '<iframe width="{width}" height="800" style="border: 0" srcdoc="{page}"></iframe>'


@dataclass(frozen=True)
class Seen:
    """What a browser saw.

    Args:
        console: its messages.
        outside: addresses that it asked for over a network.
        pictures, broken: images, and those that do not show.
        excess: pixels that the page is wider than the window, of the width where it is most.
        scripts: of the page.
    """

    console: list[str]
    outside: list[str]
    pictures: int
    broken: int
    excess: int
    scripts: int


@cache
def find_browser() -> str | None:
    """A Chromium that starts, if there is one: some systems ship a name with nothing behind it."""
    found = filter(None, map(shutil.which, NAMES))
    return next(
        (path for path in found if subprocess.run([path, "--version"], capture_output=True).returncode == 0), None
    )


def look_at(page: Path, folder: Path, widths: Sequence[int]) -> Seen:
    """Open a page as it is, and again in frames of these widths; ``folder`` takes the browser's own files."""
    _, said = _browse(page, folder)
    text, framed = html.escape(page.read_text(encoding="utf-8")), folder / "frames.html"
    frames = "".join(FRAME.format(width=width, page=text) for width in widths)
    framed.write_text(PAGE.format(frames=frames), encoding="utf-8")
    shown, _ = _browse(framed, folder / "framed")
    found = re.search(r"<output>(.*?)</output>", shown)
    assert found, shown[-2000:]
    figures = json.loads(html.unescape(found.group(1)))
    return Seen(re.findall(r"CONSOLE[^\]]*\] (.*)", said), _requests(folder / "net.json"), **figures)


def _browse(page: Path, folder: Path) -> tuple[str, str]:
    """The page as the browser holds it, and what the browser says; no process of it is left."""
    folder.mkdir(parents=True)
    own = (f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}", "--dump-dom")
    command = [find_browser() or "", *OPTIONS, *own, page.resolve().as_uri()]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        return process.communicate(timeout=120)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            process.poll()


def _requests(log: Path) -> list[str]:
    """Network addresses that the page asked for; the browser's own requests have no origin."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    asked = [line for line in lines if '"initiator"' in line and '"initiator":"not an origin"' not in line]
    return [url for line in asked for url in re.findall(r'"url":"((?:https?|wss?|ftp)://[^"]*)"', line)]
