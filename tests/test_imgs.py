"""The pictures in imgs/ say what torch says, and are those that `make imgs` draws today."""

import importlib.util
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from blitz_helpers import Network

IMGS = Path(__file__).parents[1] / "imgs"
SVG = "{http://www.w3.org/2000/svg}"
PICTURES = ["nn", "graph"]


def drawn_in(folder):
    """Return the folder with every picture, drawn now."""
    spec = importlib.util.spec_from_file_location("draw", IMGS / "draw.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.draw(folder)
    return folder


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    return drawn_in(tmp_path_factory.mktemp("imgs"))


def texts(svg):
    root = ElementTree.parse(svg).getroot()
    return ["".join(text.itertext()).strip() for text in root.iter(f"{SVG}text")]


class SizesThatTorchGives(TorchFunctionMode):
    """Notes the output shape of every function of torch that is called on images, as it runs."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if isinstance(output, torch.Tensor):
            self.shapes.append(tuple(output.shape))
        return output


def test_the_sizes_in_the_picture_are_those_of_a_real_forward():
    net, image = Network(), torch.zeros(1, 1, 32, 32)
    with SizesThatTorchGives() as torch_gives, torch.no_grad():
        net(image)
    shapes = [(1, 1, 32, 32)]
    for shape in torch_gives.shapes:
        if shape != shapes[-1]:
            shapes.append(shape)
    labels = ["@".join(filter(None, [str(c), "x".join(map(str, size))])) for _, c, *size in shapes]
    drawn = texts(IMGS / "nn.svg")
    assert [text for text in drawn if text[0].isdigit()] == labels
    assert labels[0] == "1@32x32"
    assert labels[-1] == "10"


def test_the_boxes_in_the_graph_are_the_nodes_that_torch_keeps():
    net = Network()
    loss = F.mse_loss(net(torch.zeros(1, 1, 32, 32)), torch.zeros(1, 10))
    expected = Counter(name for name, _ in net.named_parameters())
    todo = [loss.grad_fn]
    while todo:
        node = todo.pop()
        if not hasattr(node, "variable"):  # only a leaf has one
            expected[re.sub(r"Backward\d+$", "", node.name()).lower()] += 1
        todo += [before for before, _ in node.next_functions if before is not None]
    drawn = Counter()
    for group in ElementTree.parse(IMGS / "graph.svg").getroot().iter(f"{SVG}g"):
        if group.get("id") == "title":
            title = "".join(group.itertext()).strip()
            drawn[title if "." in title else title.replace("_", "")] += 1
    assert drawn == expected
    assert drawn.total() == 26


@pytest.mark.parametrize("name", PICTURES)
def test_the_committed_picture_has_the_labels_of_a_fresh_one(fresh, name):
    assert texts(IMGS / f"{name}.svg") == texts(fresh / f"{name}.svg")


@pytest.mark.parametrize("name", PICTURES)
def test_the_png_has_the_form_of_a_fresh_one(fresh, name):
    def width_to_height(png):
        header = png.read_bytes()[:24]
        assert header.startswith(b"\x89PNG")
        return int.from_bytes(header[16:20], "big") / int.from_bytes(header[20:24], "big")

    committed, drawn = (width_to_height(folder / f"{name}.png") for folder in (IMGS, fresh))
    assert committed == pytest.approx(drawn, rel=0.02)


def test_every_picture_in_the_folder_is_drawn_by_the_program(fresh):
    def pictures(folder):
        return {path.name for path in folder.iterdir() if path.suffix in {".png", ".svg"}}

    photographs = {"page.png", "trace.png"}  # by imgs/photograph.py, which needs a browser
    assert pictures(fresh) | photographs == pictures(IMGS)


def test_drawing_twice_gives_the_same_svg(fresh, tmp_path):
    again = drawn_in(tmp_path)
    for name in PICTURES:
        assert (again / f"{name}.svg").read_bytes() == (fresh / f"{name}.svg").read_bytes()
