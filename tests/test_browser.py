"""Every notebook runs to its end in JupyterLab, in a real browser, as a reader would see it.

With SCREENSHOTS=DIR in the environment it also takes a picture of each, in both themes.
"""

import os
import platform
from pathlib import Path

import nbformat
import pytest
from jupyter_lab import (
    COUNTS,
    KERNEL_ANSWERS,
    NOTEBOOK,
    NOTEBOOK_IS_OPEN,
    SECOND,
    open_cells,
    run_all_cells,
    watch,
)

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(
    path for path in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)
PICTURES = """() => [...document.querySelectorAll('.jp-OutputArea-output img')]
    .map(image => ({ alt: image.alt, drawn: image.complete && image.naturalWidth > 0 }))"""
EXPLORERS = "() => document.querySelectorAll('.blitz-explorer[data-state]').length"
IS_UNSAVED = "() => window.jupyterapp.shell.currentWidget.context.model.dirty"
TO_THE_TOP = """async () => {
    document.querySelectorAll('.jp-WindowedPanel-outer').forEach(panel => panel.scrollTo(0, 0));
    for (let frame = 0; frame < 10; frame++)  // the cells come into view, and are then drawn
        await new Promise(requestAnimationFrame);
}"""
HEIGHT = """() => Math.max(...[...document.querySelectorAll('.jp-WindowedPanel-outer')]
    .map(panel => panel.scrollHeight))"""


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
        page.wait_for_selector("#jupyterlab-splash", state="detached")
        page.screenshot(path=folder / f"{name}_{theme.lower()}.png")


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@every_notebook
def test_opening_a_page_changes_nothing(path, lab, browser):
    address, token, _ = lab
    page = browser.new_page()
    page.goto(f"{address}/lab/tree/stored/{path.name}?token={token}&reset")
    page.wait_for_selector(NOTEBOOK_IS_OPEN, timeout=60 * SECOND)
    page.evaluate(KERNEL_ANSWERS)
    changed = page.evaluate(IS_UNSAVED)
    stored = nbformat.read(path, as_version=4).metadata.language_info.version
    # Front ends write down which Python a page was opened with.
    assert changed == (stored != platform.python_version())
    page.close()


def test_a_page_runs_in_notebook_7(lab, browser):
    address, token, _ = lab
    page = browser.new_page(viewport={"width": 1280, "height": 2000})
    page.goto(f"{address}/notebooks/notebooks/{NOTEBOOKS[0].name}?token={token}")
    page.wait_for_selector(NOTEBOOK_IS_OPEN, timeout=60 * SECOND)
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
    address, token, _ = lab
    page = browser.new_page(viewport={"width": 1280, "height": 2000})
    console, foreign = watch(page, lab)
    where = path.relative_to(ROOT).as_posix()
    page.goto(f"{address}/lab/tree/{where}?token={token}&reset")
    page.wait_for_selector(NOTEBOOK_IS_OPEN, timeout=60 * SECOND)
    run_all_cells(page)

    cells = page.evaluate(NOTEBOOK)["cells"]
    failed = [cell for cell in cells if "error" in kinds_of_output(cell)]
    meant = [cell for cell in cells if "raises-exception" in cell["metadata"].get("tags", [])]
    assert failed == meant

    outputs = [str(cell.get("outputs")) for cell in cells]
    explorers = sum("<img " in text and "jupyter.widget-view" in text for text in outputs)
    page.wait_for_function(f"count => ({EXPLORERS})() === count", arg=explorers)
    pictures = page.evaluate(PICTURES)
    assert len(pictures) == sum("<img " in text for text in outputs) - explorers
    assert all(picture["alt"] and picture["drawn"] for picture in pictures), pictures

    dialogs = page.query_selector_all(".jp-Dialog, .Toastify__toast")
    assert not dialogs, [dialog.inner_text() for dialog in dialogs]
    assert foreign == []
    assert console == []
    if os.environ.get("SCREENSHOTS"):
        photograph(page, path.stem)
    page.close()


RECORDS = """
import torch
from blitz_helpers import Network, autograd_graph, evaluate, fit, gradient_report, sgd_step
from blitz_helpers import trace_shapes
net = Network()
digits = [(torch.rand(4, 1, 32, 32), torch.arange(4))]
history = fit(net, digits, lambda params: sgd_step(params, lr=0.1), epochs=2, val_loader=digits)
scores = net(digits[0][0])
scores.sum().backward()
"""
SHOWN = [
    "trace_shapes(net, (1, 1, 32, 32))",
    "trace_shapes(net, (1, 1, 32, 32)).by_module()",
    "gradient_report(net)",
    "autograd_graph(scores, net)",
    "evaluate(net, digits)",
    "history",
]
TABLES = ".jp-OutputArea-output [role=group][aria-label][tabindex='0']"


@pytest.mark.parametrize("front", ["lab/tree", "notebooks"])
def test_a_wide_table_scrolls_by_keyboard(front, lab, browser):
    page, *_ = open_cells(lab, browser, front, [RECORDS, *SHOWN])
    tables = page.locator(TABLES).all()
    assert len({table.get_attribute("aria-label") for table in tables}) == len(SHOWN)
    for table in tables:
        table.evaluate("box => { box.style.width = '120px' }")
        table.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("box => box.scrollLeft > 0", arg=table.element_handle())
    assert page.evaluate(IS_UNSAVED)
    page.keyboard.press("Control+s")
    page.wait_for_function(f"() => !({IS_UNSAVED})()")
    page.close()


def test_a_click_on_a_table_leaves_the_keys_to_the_notebook(lab, browser):
    page, *_ = open_cells(lab, browser, "lab/tree", [RECORDS, SHOWN[0], SHOWN[2]])
    page.locator(f"{TABLES} td").first.click()
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(f"() => (([_, first, second]) => first > second)(({COUNTS})())")
    page.close()
