"""What the picture of a graph shows: every node, every edge, slots, kinds; large ones folded."""

import sys
from collections import Counter, defaultdict
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from blitz_helpers import Network, autograd_graph, graph_svg, label_modules, plot_graph, show


def network_loss(generator):
    net = Network()
    images = torch.randn(1, 1, 32, 32, generator=generator)
    return F.mse_loss(net(images), torch.zeros(1, 10)), net


def texts(ax, role):
    return [text.get_text() for text in ax.texts if text.get_gid() == role]


def collection(ax, gid):
    (found,) = (collection for collection in ax.collections if collection.get_gid() == gid)
    return found


def boxes(ax):
    """Return the bounds of every box, in the order of the nodes."""
    return [path.get_extents() for path in collection(ax, "boxes").get_paths()]


def arrows(ax):
    """Return the points of every arrow but the legend's."""
    return [path.vertices for path in collection(ax, "arrows").get_paths()][:-1]


def middle(box):
    return ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)


def test_the_network_is_drawn_with_its_26_nodes_and_25_edges(generator):
    graph = autograd_graph(*network_loss(generator))
    ax = plot_graph(graph)
    assert len(boxes(ax)) == len(graph.nodes) == 26
    assert len(arrows(ax)) == len(graph.edges) == 25
    expected = [node.parameter or node.op for node in graph.nodes]
    assert texts(ax, "title") == expected
    assert "fc3  1x10" in texts(ax, "detail")
    assert "6x1x3x3" in texts(ax, "detail")


def test_slots_stand_on_the_edges_where_more_than_one_feeds(generator):
    graph = autograd_graph(*network_loss(generator))
    feeding = Counter(edge.target for edge in graph.edges)
    expected = Counter(f"[{edge.slot}]" for edge in graph.edges if feeding[edge.target] > 1)
    assert Counter(texts(plot_graph(graph), "slot")) == expected


def test_the_main_path_is_straight_and_leaves_stand_beside_what_they_feed(generator):
    graph = autograd_graph(*network_loss(generator))
    middles = [middle(box) for box in boxes(plot_graph(graph))]
    # `t` stands beside its `addmm` with the weight that it transposes.
    on_the_path = [n.number for n in graph.nodes if n.parameter is None and n.op != "t"]
    assert len(on_the_path) == 13
    assert [middles[number][0] for number in on_the_path] == pytest.approx([0.0] * 13)
    heights = [middles[number][1] for number in on_the_path]
    assert heights == sorted(heights, reverse=True)
    for leaf in graph.leaves:
        assert abs(middles[leaf.number][0]) > 0.5
        assert min(abs(middles[leaf.number][1] - height) for height in heights) < 1e-6


@pytest.mark.parametrize(("length", "beside"), [(2, True), (3, False)])
def test_a_short_chain_to_a_leaf_stands_beside_and_a_long_one_leads_down(length, beside):
    main, aside = torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)
    h, chain = main, aside
    for _ in range(6):
        h = h.tanh()
    for _ in range(length):
        chain = chain.exp()
    graph = autograd_graph(h * chain, tensors={"aside": aside})
    drawn = zip(boxes(plot_graph(graph)), graph.nodes, strict=True)
    heights = [middle(box)[1] for box, node in drawn if node.op == "exp"]
    assert len(set(heights)) == (1 if beside else length)


def looks(graph):
    """Return for operations, leaves and freed operations how their boxes look."""
    ax = plot_graph(graph)
    drawn = collection(ax, "boxes")
    styles = zip(
        map(tuple, drawn.get_facecolors()),
        map(tuple, drawn.get_edgecolors()),
        map(str, drawn.get_linestyles()),
        strict=True,
    )
    found = defaultdict(set)
    for node, style in zip(graph.nodes, styles, strict=True):
        kind = "leaf" if node.name == "AccumulateGrad" else "freed" if node.freed else "operation"
        found[kind].add(style)
    return found, texts(ax, "legend")


def test_operations_leaves_and_freed_ones_look_different(generator):
    loss, net = network_loss(generator)
    before, legend = looks(autograd_graph(loss, net))
    assert legend == ["operation", "leaf: fills .grad", "gradient"]
    loss.backward()
    after, legend = looks(autograd_graph(loss, net))
    assert legend == ["operation", "leaf: fills .grad", "freed operation", "gradient"]
    assert after.keys() == {"operation", "leaf", "freed"}
    assert all(len(styles) == 1 for styles in after.values())
    assert len(set.union(*after.values())) == 3
    assert before == {kind: after[kind] for kind in ("operation", "leaf")}


def assert_no_boxes_overlap(ax):
    found = boxes(ax)
    for number, one in enumerate(found):
        for other in found[:number]:
            apart_x = abs(middle(one)[0] - middle(other)[0])
            apart_y = abs(middle(one)[1] - middle(other)[1])
            beside = apart_x >= (one.width + other.width) / 2
            above = apart_y >= (one.height + other.height) / 2
            assert beside or above


@settings(max_examples=25)
@given(choices=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=12))
def test_any_graph_is_drawn_whole_and_without_overlaps(choices):
    tensors = [torch.ones((), requires_grad=True), torch.ones((), requires_grad=True)]
    for one, other in choices:
        tensors.append(tensors[one % len(tensors)] * tensors[other % len(tensors)])
    graph = autograd_graph([tensor * 1.0 for tensor in tensors])
    ax = plot_graph(graph)
    assert len(boxes(ax)) == len(graph.nodes)
    assert len(arrows(ax)) == len({(edge.source, edge.target) for edge in graph.edges})
    assert_no_boxes_overlap(ax)
    plt.close("all")


def test_arrows_lead_down_or_to_the_side(generator):
    lstm = nn.LSTM(4, 5)
    output, state = lstm(torch.randn(3, 2, 4, generator=generator))
    ax = plot_graph(autograd_graph((output, *state), lstm))
    assert_no_boxes_overlap(ax)
    for points in arrows(ax):
        (x0, y0), *_, (x1, y1) = points[:4]
        assert y1 < y0 or x1 != x0


def deep_model(blocks):
    block = [nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)) for _ in range(blocks)]
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(*block), nn.Linear(2, 1))


def test_a_large_graph_is_folded_by_module_as_finely_as_there_is_room():
    model = deep_model(20)
    graph = autograd_graph(model(torch.ones(1, 2)), model)
    ax = plot_graph(graph)
    assert texts(ax, "title") == ["2", *(f"1.{block}" for block in reversed(range(20))), "0"]
    counts = [int(detail.split()[0]) for detail in texts(ax, "detail")]
    assert sum(counts) == len(graph.nodes) > 64
    assert len(arrows(ax)) == 21

    model = deep_model(60)
    ax = plot_graph(autograd_graph(model(torch.ones(1, 2)), model))
    assert texts(ax, "title") == ["2", "1", "0"]


def test_a_module_that_runs_between_others_is_folded_without_a_circle():
    relu, layers = nn.ReLU(), nn.ModuleList(nn.Linear(2, 2) for _ in range(12))
    model = nn.ModuleDict({"relu": relu, "layers": layers})
    h = torch.ones(1, 2)
    with label_modules(model):
        for layer in layers:
            h = relu(layer(h)) + h
    graph = autograd_graph(h, model)
    ax = plot_graph(graph)
    expected = [title for number in reversed(range(12)) for title in ("relu", f"layers.{number}")]
    assert texts(ax, "title") == expected
    assert_no_boxes_overlap(ax)


def test_a_deep_graph_without_modules_is_folded_by_depth():
    w = torch.ones((), requires_grad=True)
    h = w
    for _ in range(5000):
        h = (h * w).tanh()
    graph = autograd_graph(h)
    ax = plot_graph(graph)
    assert texts(ax, "title")[0].startswith("depth 0 to ")
    assert texts(ax, "title")[-1].endswith(" to 9,999")
    counts = [int(detail.split()[0].replace(",", "")) for detail in texts(ax, "detail")]
    assert sum(counts) == len(graph.nodes)


def test_one_input_in_two_slots_is_one_arrow_with_both(generator):
    w = torch.ones((), requires_grad=True)
    ax = plot_graph(autograd_graph(w * w))
    assert texts(ax, "slot") == ["[0][1]"]
    assert len(arrows(ax)) == 1


def squared_distance():
    """Return the graph of (2 * 3 - 5)**2 after a backward, its tensors named."""
    w = torch.tensor(2.0, requires_grad=True)
    product = w * 3
    loss = (product - 5) ** 2
    product.retain_grad()
    loss.backward(retain_graph=True)
    return autograd_graph(loss, tensors={"w": w, "w*3": product, "loss": loss})


def test_named_tensors_stand_in_their_boxes_with_value_and_gradient():
    ax = plot_graph(squared_distance())
    assert texts(ax, "title") == ["pow", "sub", "mul", "w"]
    assert texts(ax, "detail") == [
        "loss = 1",
        "scalar",
        "w*3 = 6, gradient 2",
        "value 2, gradient 6",
    ]


def test_a_named_tensor_of_many_numbers_stands_there_by_its_name(generator):
    image = torch.randn(2, 3, generator=generator, requires_grad=True)
    double = image * 2
    ax = plot_graph(autograd_graph(double.sum(), tensors={"image": image, "double": double}))
    assert texts(ax, "title") == ["sum", "mul", "image"]
    assert texts(ax, "detail") == ["scalar", "double", "2x3"]


def test_numbers_below_zero_have_a_minus_sign():
    w = torch.tensor(-0.5, requires_grad=True)
    ax = plot_graph(autograd_graph(w * 3, tensors={"w": w}))
    assert texts(ax, "detail")[-1] == "value \N{MINUS SIGN}0.5"


def test_the_alt_text_of_a_few_boxes_tells_each_and_every_arrow():
    assert show(plot_graph(squared_distance())).alt == (
        "The graph from the top down: pow (loss = 1), sub (scalar), mul (w*3 = 6, gradient 2), "
        "w (value 2, gradient 6). Gradients go from pow to sub, from sub to mul, from mul to w."
    )


def test_the_alt_text_of_many_boxes_counts_them_and_reads_the_longest_way(generator):
    loss, net = network_loss(generator)
    alt = show(plot_graph(autograd_graph(loss, net))).alt
    assert alt.startswith("A graph of 16 operations and 10 leaves.")
    assert alt.endswith("view, addmm, relu, addmm, relu, addmm, mse_loss.")
    loss.backward()
    alt = show(plot_graph(autograd_graph(loss, net))).alt
    assert alt.endswith(" 12 boxes are freed.")


def test_the_alt_text_of_a_folded_graph_says_from_where_to_where():
    model = deep_model(20)
    alt = show(plot_graph(autograd_graph(model(torch.ones(1, 2)), model))).alt
    assert alt.endswith(" drawn as 22 boxes from 2 at the top to 0 at the bottom.")


def test_nothing_is_written_smaller_than_ten_pixels(generator):
    ax = plot_graph(autograd_graph(*network_loss(generator)))
    assert min(text.get_fontsize() for text in ax.texts) * 96 / 72 >= 10


@pytest.mark.parametrize("length", [1, 80], ids=["narrow boxes", "wider than the legend"])
def test_a_slot_stands_on_the_page_and_no_arrow_runs_through_it(length):
    w = torch.tensor(2.0, requires_grad=True)
    ax = plot_graph(autograd_graph(w * w + w, tensors={"n" * length: w}))
    ax.figure.canvas.draw()
    page = ax.get_window_extent()
    for text in ax.texts:
        box = text.get_window_extent()
        assert page.x0 <= box.x0
        assert box.x1 <= page.x1
        if text.get_gid() == "slot":
            for path in collection(ax, "arrows").get_paths():
                assert not ax.transData.transform_path(path).intersects_bbox(box, filled=False)


def svg_elements(source, tag):
    return list(ElementTree.fromstring(source).iter(f"{{http://www.w3.org/2000/svg}}{tag}"))


@pytest.mark.parametrize("backward", [False, True])
def test_the_svg_is_the_picture_that_matplotlib_draws(backward, generator):
    loss, net = network_loss(generator)
    if backward:
        loss.backward()
    graph = autograd_graph(loss, net)
    ax, source = plot_graph(graph), graph_svg(graph)
    words = [(word.get("class"), word.text) for word in svg_elements(source, "text")]
    assert words == [(text.get_gid(), text.get_text()) for text in ax.texts]
    (left, _), (_, top) = ax.get_xlim(), ax.get_ylim()
    rects = svg_elements(source, "rect")[-len(graph.nodes) :]
    for rect, box in zip(rects, boxes(ax), strict=True):
        x, y, width, height = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
        assert (x, y) == pytest.approx((72 * (box.x0 - left), 72 * (top - box.y1)), abs=0.1)
        assert (width, height) == pytest.approx((72 * box.width, 72 * box.height), abs=0.1)
    dashed = [rect.get("stroke-dasharray") is not None for rect in rects]
    assert dashed == [bool(node.freed) for node in graph.nodes]
    curves, heads = (path.get("d").count("M") for path in svg_elements(source, "path"))
    assert curves == heads == len(graph.edges) + 1  # the legend's
    assert source._repr_svg_() == source


def test_the_svg_escapes_names():
    model = nn.ModuleDict({'<&">': nn.Linear(2, 2)})
    source = graph_svg(autograd_graph(model['<&">'](torch.ones(1, 2)), model))
    assert '<&">.weight' in [word.text for word in svg_elements(source, "text")]


def test_the_svg_needs_no_matplotlib(monkeypatch, generator):
    graph = autograd_graph(*network_loss(generator))
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert graph_svg(graph).startswith("<svg")


def test_the_svg_of_a_name_with_control_characters_is_xml():
    w = torch.ones(2, requires_grad=True)
    graph = autograd_graph(w * 2, tensors={"a\x00b\x1b\n": w})
    assert "a\N{REPLACEMENT CHARACTER}b" in "".join(
        ElementTree.fromstring(graph_svg(graph)).itertext()
    )
