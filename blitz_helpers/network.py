"""The small convolutional network used throughout the series."""

from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blitz_helpers.shapes import (
    conv_fitting_sizes,
    conv_output_size,
    pool_fitting_sizes,
    pool_output_size,
)


class Network(nn.Module):
    """Two convolutions, each with ReLU and 2x2 max pooling, then three linear layers.

    Shapes: ``(N, in_channels, input_size, input_size)`` to ``(N, num_classes)``.

    Raises:
        ValueError: an argument is not a whole number of 1 or more, or ``input_size`` is too
            small for two convolutions with this ``kernel_size``.

    Source: LeNet-5 (Y. LeCun et al., "Gradient-based learning applied to document recognition",
    1998), with ReLU, max pooling and 3x3 kernels instead of 5x5.

    >>> net = Network()
    >>> sum(parameter.numel() for parameter in net.parameters())
    81194
    >>> net(torch.zeros(4, 1, 32, 32)).shape
    torch.Size([4, 10])
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        input_size: int = 32,
        kernel_size: int = 3,
    ) -> None:
        super().__init__()
        _check(
            in_channels=in_channels,
            num_classes=num_classes,
            input_size=input_size,
            kernel_size=kernel_size,
        )
        size = _size_after_pooling(input_size, kernel_size)
        self.conv1 = nn.Conv2d(in_channels, 6, kernel_size)
        self.conv2 = nn.Conv2d(6, 16, kernel_size)
        self.fc1 = nn.Linear(16 * size * size, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the score of each class, one row per image."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.fc3(x)
        return x


def _check(**arguments: object) -> None:
    for name, value in arguments.items():
        # Whole numbers of numpy count too.
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r}: use a whole number of 1 or more.")


def _size_after_pooling(input_size: int, kernel_size: int) -> int:
    """Return the side length of the output of the second pooling."""
    smallest = 1
    for _ in range(2):
        smallest = pool_fitting_sizes(smallest, 2).start
        smallest = conv_fitting_sizes(smallest, kernel_size).start
    if input_size < smallest:
        raise ValueError(
            f"input_size={input_size} leaves nothing after two convolutions with "
            f"kernel_size={kernel_size}, each followed by pooling: "
            f"use input_size={smallest} or more."
        )
    size = input_size
    for _ in range(2):
        size = conv_output_size(size, kernel_size)
        size = pool_output_size(size, 2)
    return size
