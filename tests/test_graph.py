"""The autograd graph as data, held against torch's own walk and torch's own `backward()`."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from blitz_helpers import autograd_graph


class Net(nn.Module):
    """The series' network, spelled out here so that this file needs no other module."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 16, 3)
        self.fc1, self.fc2, self.fc3 = nn.Linear(576, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        for conv in (self.conv1, self.conv2):
            x = F.max_pool2d(F.relu(conv(x)), 2)
        x = torch.flatten(x, 1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def loss(net):
    return F.mse_loss(net(torch.ones(1, 1, 32, 32)), torch.ones(1, 10))


def test_the_networks_loss_has_26_nodes_and_25_edges(net, loss):
    graph = autograd_graph(loss, net)
    counts = {}
    for node in graph.nodes:
        counts[node.op] = counts.get(node.op, 0) + 1
    assert counts == {
        "accumulate_grad": 10,
        "relu": 4,
        "addmm": 3,
        "t": 3,
        "convolution": 2,
        "max_pool2d_with_indices": 2,
        "view": 1,
        "mse_loss": 1,
    }
    assert len(graph.edges) == 25
    assert {leaf.parameter for leaf in graph.leaves} == {name for name, _ in net.named_parameters()}


def test_path_reads_forward(net, loss):
    assert autograd_graph(loss).path() == (
        "convolution -> relu -> max_pool2d_with_indices -> convolution -> relu -> "
        "max_pool2d_with_indices -> view -> addmm -> relu -> addmm -> relu -> addmm -> mse_loss"
    )
