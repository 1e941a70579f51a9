"""A model written as its layers and a function, for tests of many small models."""

from torch import nn


class Fn(nn.Module):
    """Layers, and a forward that uses them."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)
