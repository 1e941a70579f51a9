"""Both explorers in a real browser: moved by keyboard and mouse, and answered by Python."""

import json

import nbformat
import pytest
from jupyter_lab import KERNEL_ANSWERS, NOTEBOOK_IS_OPEN, SECOND, local_to, run_all_cells

TRAIN = """
from functools import partial
import torch
from torch.utils.data import DataLoader
from blitz_helpers import Network, explore_digit, explore_window, fit, load_mnist, sgd_step
torch.manual_seed(0)
net = Network()
order = torch.Generator().manual_seed(0)
loader = DataLoader(load_mnist("train"), 16, shuffle=True, generator=order)
_ = fit(net, loader, partial(sgd_step, lr=0.2), epochs=3, progress=False)
"""
CELLS = [TRAIN, "window = explore_window(size=6, padding=1)\nwindow", "window", "explore_digit(net)"]
DIRTY = "() => document.querySelectorAll('.jp-Dialog, .Toastify__toast').length"


class Explorer:
    """One explorer on a page."""

    def __init__(self, page, number):
        self.page = page
        self.root = page.locator(".blitz-explorer").nth(number)
        self.root.and_(page.locator("[data-state]")).wait_for(timeout=60 * SECOND)
        self.canvas = self.root.locator("canvas").first
        self.status = self.root.locator(".blitz-status")

    @property
    def state(self):
        return json.loads(self.root.get_attribute("data-state"))

    @property
    def picture(self):
        return [canvas.screenshot() for canvas in self.root.locator("canvas").all()[:2]]

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def wait(self, **wanted):
        """Wait until the page shows a state."""
        self.page.wait_for_function(
            """([root, wanted]) => Object.entries(wanted).every(([name, value]) =>
                JSON.stringify(JSON.parse(root.dataset.state)[name]) === JSON.stringify(value))""",
            arg=[self.root.element_handle(), wanted],
            timeout=20 * SECOND,
        )

    def wait_until_it_says(self, text):
        self.status.filter(has_text=text).wait_for(timeout=20 * SECOND)

    def draw(self, *points, scale):
        """Draw a stroke with the mouse, in pixels of the picture."""
        self.canvas.scroll_into_view_if_needed()
        box = self.canvas.bounding_box()
        (x, y), *others = [(box["x"] + scale * x, box["y"] + scale * y) for x, y in points]
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        for x, y in others:
            self.page.mouse.move(x, y, steps=8)
        self.page.mouse.up()


@pytest.fixture(scope="module")
def page(lab, browser):
    """Yield a page in JupyterLab on which both explorers were run."""
    address, token = lab
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(source.strip()) for source in CELLS],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )
    lab.write(notebook, "explorers.ipynb")
    page = browser.new_page(viewport={"width": 1280, "height": 2600})
    page.seen, page.asked = [], []
    page.on("console", lambda line: page.seen.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: page.seen.append(str(error)))
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(f"{address}/lab/tree/explorers.ipynb?token={token}&reset")
    page.wait_for_selector(NOTEBOOK_IS_OPEN, timeout=60 * SECOND)
    run_all_cells(page)
    yield page
    page.close()


@pytest.fixture
def window(page):
    return Explorer(page, 0)


@pytest.fixture
def digit(page):
    return Explorer(page, 2)
