"""The series' network is LeNet in shape, and takes what it says it takes."""

import numpy as np
import pytest
import torch
from torch import nn

from blitz_helpers import Network


def num_params(net):
    return sum(parameter.numel() for parameter in net.parameters())


def test_network_has_the_layers_and_numbers_that_the_series_speaks_of():
    net = Network()
    assert [name for name, _ in net.named_children()] == ["conv1", "conv2", "fc1", "fc2", "fc3"]
    assert [p.numel() for p in net.parameters()] == [
        *(54, 6, 864, 16),
        *(69_120, 120, 10_080, 84, 840, 10),
    ]
    assert num_params(net) == 81_194
    assert net.fc1.in_features == 576


def test_kernels_of_5_give_the_classic_shape():
    net = Network(kernel_size=5)
    assert num_params(net) == 61_706
    assert net.fc1.in_features == 400


@pytest.mark.parametrize("input_size", [10, 13, 27, 28, 29, 30, 31, 33, 34, 64])
@pytest.mark.parametrize("kernel_size", [1, 2, 3])
def test_network_fits_the_input_that_it_was_made_for(input_size, kernel_size):
    net = Network(in_channels=3, num_classes=7, input_size=input_size, kernel_size=kernel_size)
    assert net(torch.zeros(2, 3, input_size, input_size)).shape == (2, 7)


def test_forward_agrees_with_torchs_modules_in_a_row(generator):
    torch.manual_seed(0)
    net = Network()
    in_a_row = nn.Sequential(
        *(net.conv1, nn.ReLU(), nn.MaxPool2d(2), net.conv2, nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), net.fc1, nn.ReLU(), net.fc2, nn.ReLU(), net.fc3),
    )
    x = torch.randn(5, 1, 32, 32, generator=generator)
    assert torch.equal(net(x), in_a_row(x))


def test_images_of_another_size_fail_instead_of_mixing_the_batch():
    # Nine images of 24x24 hold as many numbers as four of the right size.
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Network()(torch.zeros(9, 1, 24, 24))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_size": 3}, "input_size=3 leaves nothing .* use input_size=10 or more"),
        ({"input_size": 15, "kernel_size": 5}, "input_size=15 .* use input_size=16 or more"),
        ({"kernel_size": 40}, "input_size=32 .* kernel_size=40, .* use input_size=121 or more"),
        ({"kernel_size": 0}, "kernel_size=0: use a whole number of 1 or more"),
        ({"in_channels": "3"}, "in_channels='3': use a whole number"),
        ({"in_channels": 0}, "in_channels=0: use a whole number of 1 or more"),
        ({"num_classes": 0}, "num_classes=0: use a whole number of 1 or more"),
        ({"num_classes": -1}, "num_classes=-1: use"),
        ({"input_size": 32.0}, "input_size=32.0: use"),
        ({"in_channels": True}, "in_channels=True: use"),
        ({"kernel_size": (3, 3)}, r"kernel_size=\(3, 3\): use"),
    ],
)
def test_an_impossible_network_raises_an_error_that_says_what_works(arguments, message):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match=message):
        Network(**arguments)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kernel_size", [1, 3, 5, 8])
def test_the_smallest_input_that_an_error_names_fits(kernel_size):
    with pytest.raises(ValueError, match="leaves nothing") as caught:
        Network(input_size=1, kernel_size=kernel_size)
    smallest = int(str(caught.value).split("use input_size=")[1].split()[0])
    assert Network(input_size=smallest, kernel_size=kernel_size).fc1.in_features == 16
    with pytest.raises(ValueError, match="leaves nothing"):
        Network(input_size=smallest - 1, kernel_size=kernel_size)


def test_whole_numbers_of_numpy_count():
    assert Network(num_classes=np.int64(3)).fc3.out_features == 3
