"""A JupyterLab of its own on copies of the notebooks, and how a test drives it in a browser."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

ROOT = Path(__file__).parents[1]
# Without these a browser in a closed network reports its own failed look-ups.
CHROMIUM = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
SECOND = 1000  # Playwright counts in milliseconds
SLOWEST = 240 * SECOND

KERNEL_ANSWERS = """async () => {
    const context = window.jupyterapp.shell.currentWidget.sessionContext;
    await context.ready;
    await context.session.kernel.info;
    await context.session.kernel.requestExecute({ code: '', silent: true }).done;
}"""
COUNTS = """() => window.jupyterapp.shell.currentWidget.context.model.toJSON().cells
    .filter(cell => cell.cell_type === 'code').map(cell => cell.execution_count)"""
HAS_FINISHED = f"() => ({COUNTS})().every(count => count !== null)"
NOTEBOOK = "() => window.jupyterapp.shell.currentWidget.context.model.toJSON()"
NOTEBOOK_IS_OPEN = ".jp-NotebookPanel .jp-Notebook"


class Lab(NamedTuple):
    address: str
    token: str
    root: Path


@contextmanager
def started_lab(home):
    """Yield a running JupyterLab of its own.

    It shows copies of the notebooks: in `notebooks` without outputs, in `stored` as they are.
    """
    for folder in ("notebooks", "imgs"):
        shutil.copytree(ROOT / folder, home / "root" / folder)
    shutil.copytree(ROOT / "notebooks", home / "root" / "stored")
    for path in (home / "root" / "notebooks").rglob("*.ipynb"):
        clear_outputs(path)
    quiet = home / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text(
        json.dumps({"fetchNews": "false", "checkForUpdates": False})
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address, token = f"http://127.0.0.1:{port}", secrets.token_hex(16)
    environment = os.environ | {
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home / 'root'}"]
    command += ["--LabApp.expose_app_in_browser=True"]
    command += ["--JupyterNotebookApp.expose_app_in_browser=True"]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            wait_for(server, f"{address}/api/status?token={token}", home / "server.log")
            yield Lab(address, token, home / "root")
        finally:
            server.terminate()
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def clear_outputs(path):
    """What is on the page at the end shall be of this run."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, path)


def wait_for(server, url, log):
    while server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=30).close()
        except urllib.error.URLError:
            try:
                server.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
        else:
            return
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def run_all_cells(page):
    sync_api = pytest.importorskip("playwright.sync_api")
    page.evaluate(KERNEL_ANSWERS)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    try:
        page.wait_for_function(HAS_FINISHED, timeout=SLOWEST)
    except sync_api.TimeoutError:
        dialogs = [dialog.inner_text() for dialog in page.query_selector_all(".jp-Dialog")]
        pytest.fail(f"not all cells ran: {page.evaluate(COUNTS)}, dialogs: {dialogs}")


def watch(page, lab):
    """Return two lists, which fill with the page's errors and with its requests to other hosts."""
    errors, foreign = [], []
    local = (lab.address, lab.address.replace("http", "ws"), "data:", "blob:")

    def asked(request):
        if not request.url.startswith(local):
            foreign.append(request.url)

    page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", asked)
    return errors, foreign


def open_cells(lab, browser, front, cells):
    """Return a page with a notebook of these cells, all of them run, and what `watch` returns."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source.strip()) for source in cells],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    nbformat.write(notebook, lab.root / "cells.ipynb")
    page = browser.new_page(viewport={"width": 1280, "height": 2600})
    watched = watch(page, lab)
    page.goto(f"{lab.address}/{front}/cells.ipynb?token={lab.token}&reset")
    page.wait_for_selector(NOTEBOOK_IS_OPEN, timeout=60 * SECOND)
    run_all_cells(page)
    return page, *watched
