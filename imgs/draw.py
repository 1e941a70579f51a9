"""Draw every picture in this folder anew.

usage: python imgs/draw.py [FOLDER]      (this folder where none is named)
"""

import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes

from blitz_helpers import Network, autograd_graph, plot_graph, plot_network, trace_shapes

STABLE = {
    "svg.fonttype": "none",  # text stays text: to be searched, read aloud and tested
    "svg.hashsalt": "blitz_helpers",  # or ids would be new each time
}


def save(ax: Axes, folder: Path, name: str, title: str) -> None:
    """Write the figure of ``ax`` as SVG and PNG, and close it."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    look = {"facecolor": "white", "bbox_inches": "tight", "dpi": 200}
    with mpl.rc_context(STABLE):
        figure.savefig(folder / f"{name}.svg", metadata={"Title": title, "Date": None}, **look)
    figure.savefig(folder / f"{name}.png", metadata={"Title": title, "Software": None}, **look)
    plt.close(figure)


def draw(folder: Path) -> None:
    """Draw every picture into ``folder``."""
    net = Network()
    trace = trace_shapes(net, (1, 1, 32, 32))
    save(plot_network(trace), folder, "nn", "The network of the series, with the shapes it makes")

    loss = F.mse_loss(net(torch.zeros(1, 1, 32, 32)), torch.zeros(1, 10))
    graph = autograd_graph(loss, net)
    save(plot_graph(graph), folder, "graph", "The autograd graph of the network's loss")


if __name__ == "__main__":
    mpl.use("agg")
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
