"""Photograph, in a headless browser, what the README shows: a trace and a page in JupyterLab.

usage: python imgs/photograph.py

It needs a Chromium or Chrome of the system. Fonts and browsers differ, so that the pictures do too.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from blitz_helpers import Network, trace_shapes

HERE = Path(__file__).parent
PAGE = "01_define_a_network.ipynb"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# The colours that JupyterLab's light theme gives tables.
STYLE = """
body { font: 13px system-ui, sans-serif; margin: 0; display: inline-block; background: white; }
table { border-collapse: collapse; } td, th { padding: 4px 8px; text-align: right; }
tbody tr:nth-child(odd) { background: #f5f5f5; } thead { border-bottom: 1px solid #bdbdbd; }
"""


def photograph_table(browser: Browser) -> None:
    """Photograph the trace of the network, as a notebook shows it."""
    page = browser.new_page(device_scale_factor=2)
    html = trace_shapes(Network(), (1, 1, 32, 32))._repr_html_()
    page.set_content(f"<style>{STYLE}</style>{html}")
    page.locator("body").screenshot(path=HERE / "trace.png")
    page.close()


def photograph_page(browser: Browser, folder: Path) -> None:
    """Photograph a page in JupyterLab, at its first picture."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
    shutil.copytree(HERE.parent / "notebooks", folder / "notebooks")
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", f"--IdentityProvider.token={token}"]
    command += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    homes = {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    server = subprocess.Popen(command, env={**os.environ, **homes}, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"{address}/api/status?token={token}")
        page = browser.new_page(viewport={"width": 1280, "height": 820})
        page.goto(f"{address}/lab/tree/notebooks/{PAGE}?token={token}&reset")
        page.wait_for_selector(".jp-NotebookPanel .jp-OutputArea-output img", timeout=60_000)
        for dialog in page.query_selector_all(".Toastify__close-button"):
            dialog.click()
        page.locator(".jp-OutputArea-output img").first.scroll_into_view_if_needed()
        page.wait_for_timeout(1_000)  # until what came into view is drawn
        page.screenshot(path=HERE / "page.png")
    finally:
        server.kill()  # politely asked, it would wait for its kernel
        server.wait()


def wait_for(url: str) -> None:
    """Return when the server answers."""
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=10).close()
            return
        except urllib.error.URLError:
            time.sleep(0.2)
    sys.exit("JupyterLab did not start.")


if __name__ == "__main__":
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        sys.exit(f"No browser found. Install one of: {', '.join(BROWSERS)}.")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        photograph_table(chromium)
        photograph_page(chromium, Path(folder))
