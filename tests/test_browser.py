"""Every notebook runs to its end in JupyterLab, in a real browser, as a reader would see it.

With SCREENSHOTS=DIR in the environment it also takes a picture of each, in both themes.
"""

import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

sync_api = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
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
PICTURES = """() => [...document.querySelectorAll('.jp-OutputArea-output img')]
    .map(image => ({ alt: image.alt, drawn: image.complete && image.naturalWidth > 0 }))"""
NOTEBOOK = "() => window.jupyterapp.shell.currentWidget.context.model.toJSON()"
TO_THE_TOP = """async () => {
    document.querySelectorAll('.jp-WindowedPanel-outer').forEach(panel => panel.scrollTo(0, 0));
    for (let frame = 0; frame < 10; frame++)  // the cells come into view, and are then drawn
        await new Promise(requestAnimationFrame);
}"""
HEIGHT = """() => Math.max(...[...document.querySelectorAll('.jp-WindowedPanel-outer')]
    .map(panel => panel.scrollHeight))"""


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        message = f"no browser found: install one of {', '.join(names)}"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Yield the address of a JupyterLab of its own and its token.

    It shows copies of the notebooks: in `notebooks` without outputs, in `stored` as they are.
    """
    home = tmp_path_factory.mktemp("lab")
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
            yield address, token
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
    page.evaluate(KERNEL_ANSWERS)
    page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    try:
        page.wait_for_function(HAS_FINISHED, timeout=SLOWEST)
    except sync_api.TimeoutError:
        dialogs = [dialog.inner_text() for dialog in page.query_selector_all(".jp-Dialog")]
        pytest.fail(f"not all cells ran: {page.evaluate(COUNTS)}, dialogs: {dialogs}")


def kinds_of_output(cell):
    return [output["output_type"] for output in cell.get("outputs", [])]


def photograph(page, name):
    folder = Path(os.environ["SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    page.set_viewport_size({"width": 1280, "height": min(page.evaluate(HEIGHT) + 200, 16000)})
    page.evaluate(TO_THE_TOP)
    for theme in ("Light", "Dark"):
        page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
            f"JupyterLab {theme}",
        )
        page.wait_for_function(
            "theme => document.body.dataset.jpThemeName === theme", arg=f"JupyterLab {theme}"
        )
        page.screenshot(path=folder / f"{name}_{theme.lower()}.png")


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@every_notebook
def test_opening_a_page_changes_nothing(path, lab, browser):
    address, token = lab
    page = browser.new_page()
    page.goto(f"{address}/lab/tree/stored/{path.name}?token={token}&reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-Notebook", timeout=60 * SECOND)
    page.evaluate(KERNEL_ANSWERS)
    changed = page.evaluate("() => window.jupyterapp.shell.currentWidget.context.model.dirty")
    stored = nbformat.read(path, as_version=4).metadata.language_info.version
    # Front ends write down which Python a page was opened with.
    assert changed == (stored != platform.python_version())
    page.close()


def test_a_page_runs_in_notebook_7(lab, browser):
    address, token = lab
    page = browser.new_page(viewport={"width": 1280, "height": 2000})
    page.goto(f"{address}/notebooks/notebooks/{NOTEBOOKS[0].name}?token={token}")
    page.wait_for_selector(".jp-NotebookPanel .jp-Notebook", timeout=60 * SECOND)
    run_all_cells(page)
    cells = page.evaluate(NOTEBOOK)["cells"]
    failed = [cell for cell in cells if "error" in kinds_of_output(cell)]
    assert failed == [cell for cell in cells if "raises-exception" in str(cell["metadata"])]
    pictures = page.evaluate(PICTURES)
    assert pictures
    assert all(picture["alt"] and picture["drawn"] for picture in pictures)
    page.close()


@every_notebook
def test_a_notebook_runs_to_its_end_in_jupyterlab(path, lab, browser):
    address, token = lab
    page = browser.new_page(viewport={"width": 1280, "height": 2000})
    console, requests = [], []
    page.on("console", lambda line: console.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: requests.append(request.url))
    where = path.relative_to(ROOT).as_posix()
    page.goto(f"{address}/lab/tree/{where}?token={token}&reset")
    page.wait_for_selector(".jp-NotebookPanel .jp-Notebook", timeout=60 * SECOND)
    run_all_cells(page)

    cells = page.evaluate(NOTEBOOK)["cells"]
    failed = [cell for cell in cells if "error" in kinds_of_output(cell)]
    meant = [cell for cell in cells if "raises-exception" in cell["metadata"].get("tags", [])]
    assert failed == meant

    pictures = page.evaluate(PICTURES)
    assert len(pictures) == sum("<img " in str(cell.get("outputs")) for cell in cells)
    assert all(picture["alt"] and picture["drawn"] for picture in pictures), pictures

    dialogs = page.query_selector_all(".jp-Dialog, .Toastify__toast")
    assert not dialogs, [dialog.inner_text() for dialog in dialogs]
    local = (address, address.replace("http", "ws"), "data:", "blob:")
    assert [url for url in requests if not url.startswith(local)] == []
    assert console == []
    if os.environ.get("SCREENSHOTS"):
        photograph(page, path.stem)
    page.close()
