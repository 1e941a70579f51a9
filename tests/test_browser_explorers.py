"""Both explorers in a real browser: moved by keyboard and mouse, and answered by Python."""

import json

import pytest
from jupyter_lab import COUNTS, SECOND, open_cells

TRAIN = """
from functools import partial
import torch
from torch.utils.data import DataLoader
from blitz_helpers import Network, explore_digit, explore_window, fit, load_mnist, sgd_step
torch.manual_seed(0)
net = Network()
order = torch.Generator().manual_seed(0)
loader = DataLoader(load_mnist("train"), 16, shuffle=True, generator=order)
_ = fit(net, loader, partial(sgd_step, lr=0.2), epochs=3)
"""
CELLS = [
    TRAIN,
    "window = explore_window(size=6, padding=1)\nwindow",
    "window",
    "explore_digit(net)",
]


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
    """Yield a page in JupyterLab with explorers. Nothing may go wrong on it in all the tests."""
    page, errors, foreign = open_cells(lab, browser, "lab/tree", CELLS)
    yield page
    assert errors == []
    assert foreign == []
    page.close()


@pytest.fixture
def window(page):
    return Explorer(page, 0)


@pytest.fixture
def digit(page):
    return Explorer(page, 2)


def test_the_window_moves_by_keyboard(window):
    before = window.picture
    window.canvas.focus()
    window.press("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft")
    window.wait(row=1, column=1)
    assert window.picture != before
    window.wait_until_it_says("Row 1, column 1 of the output")
    window.press("End", "Space")
    window.wait(row=0, column=0)


def test_the_window_moves_by_mouse(window):
    box = window.canvas.bounding_box()
    window.page.mouse.move(box["x"] + 20, box["y"] + 40)
    window.page.mouse.down()
    window.page.mouse.move(box["x"] + 250, box["y"] + 270, steps=10)
    window.page.mouse.up()
    window.wait(row=5, column=5)


def test_the_window_steps_on_by_itself_to_the_end(window):
    window.canvas.focus()
    window.press("End", "ArrowLeft", "ArrowLeft")
    window.wait(row=5, column=3)
    window.root.get_by_role("button", name="Play").click()
    window.wait(row=5, column=5)
    window.root.get_by_role("button", name="Play").wait_for()


def test_settings_change_by_keyboard_and_a_window_that_does_not_fit_says_why(window):
    window.root.get_by_role("slider", name="stride").focus()
    window.press("ArrowRight")
    window.wait(stride=2)
    window.root.get_by_role("slider", name="padding").focus()
    window.press("Home")
    window.wait(padding=0)
    window.root.get_by_role("slider", name="input").focus()
    window.press("Home")
    window.wait(size=1)
    window.wait_until_it_says("kernel_size=3 does not fit an input of 1")
    window.press("End")
    window.wait(size=12)
    window.wait_until_it_says("of the output")
    window.root.get_by_role("combobox", name="operation").select_option("transposed convolution")
    window.wait(op="conv_transpose2d")
    window.wait_until_it_says("of the input")


def test_an_explorer_that_stands_twice_moves_in_both_places(window, page):
    twin = Explorer(page, 1)
    window.root.get_by_role("combobox", name="operation").select_option("max pooling")
    window.wait(op="max_pool2d")
    twin.wait(op="max_pool2d")
    twin.canvas.focus()
    twin.press("Home", "ArrowDown")
    window.wait(row=1, column=0)


def test_a_drawn_seven_is_answered_seven(digit):
    digit.root.get_by_role("button", name="Clear").click()
    digit.wait(strokes=[])
    digit.wait_until_it_says("Nothing is drawn yet")
    before = digit.picture
    digit.draw((10, 9), (22, 9), (15, 24), scale=8)
    digit.wait_until_it_says("The model says 7")
    assert all(new != old for new, old in zip(digit.picture, before, strict=True))
    pressed = digit.root.locator("[aria-pressed=true]")
    assert pressed.inner_text().startswith("7")


def test_a_one_drawn_by_keyboard_is_answered_one(digit):
    digit.root.get_by_role("button", name="Clear").click()
    digit.wait(strokes=[])
    digit.canvas.focus()
    digit.press(*["ArrowUp"] * 9, "Space", *["ArrowDown"] * 17, "Space")
    digit.wait_until_it_says("The model says 1")
    digit.press("Backspace")
    digit.wait_until_it_says("Nothing is drawn yet")


def test_a_test_digit_and_the_gradient_of_another_answer(digit):
    digit.root.get_by_role("spinbutton", name="test digit").fill("3")
    digit.press("Enter")
    digit.wait(index=3)
    digit.wait_until_it_says("Test digit 3 is a")
    before = digit.picture[1]
    digit.root.locator("[data-answer='8']").press("Enter")
    digit.wait(answer=8)
    assert digit.root.get_by_text("gradient of score 8").is_visible()
    assert digit.picture[1] != before


def test_the_page_follows_a_state_that_is_set_in_python(window, page):
    page.evaluate("""() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel
        .requestExecute({ code: 'window.state = type(window.state)(stride=3, row=1)' }).done""")
    window.wait(stride=3, row=1, op="conv2d")


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_the_letters_stand_out_in_every_theme(theme, digit):
    digit.page.evaluate(
        "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
        f"JupyterLab {theme}",
    )
    dark = str(theme == "Dark").lower()
    digit.page.wait_for_function(
        """([root, dark]) => {
            const [red] = getComputedStyle(root).color.match(/[0-9.]+/g).map(Number);
            const corner = root.querySelector('canvas').getContext('2d').getImageData(9, 9, 1, 1);
            return red > 128 === dark && corner.data[0] < 128 === dark;
        }""",
        arg=[digit.root.element_handle(), dark == "true"],
        timeout=20 * SECOND,
    )


def test_without_a_kernel_it_says_to_run_the_cell_again(lab, browser):
    page, _, foreign = open_cells(
        lab, browser, "notebooks", [CELLS[0].split("torch.manual")[0], CELLS[1]]
    )
    window = Explorer(page, 0)  # in Notebook 7
    window.canvas.press("ArrowRight")
    window.wait(column=1)
    page.evaluate(
        "() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.shutdown()"
    )
    window.press("ArrowRight")
    window.wait_until_it_says("run this cell again")
    assert foreign == []
    page.close()


def test_shift_enter_runs_the_cell_of_an_explorer_that_has_the_focus(lab, browser):
    page, errors, _ = open_cells(
        lab, browser, "lab/tree", [CELLS[0].split("torch.manual")[0], CELLS[1]]
    )
    (before,) = page.evaluate(COUNTS)[1:]
    Explorer(page, 0).canvas.click()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+Enter")
    page.wait_for_function(f"before => ({COUNTS})()[1] > before", arg=before)
    assert errors == []
    page.close()
