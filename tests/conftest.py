"""What every test starts from: one thread, no screen, and a seeded generator to draw from."""

import matplotlib as mpl
import pytest
import torch
from hypothesis import settings

mpl.use("agg")
torch.set_num_threads(1)
# Durations vary on shared machines; the seed of a failing case is printed, and found again.
settings.register_profile("default", deadline=None, print_blob=True)
settings.load_profile("default")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
