"""A sample of the random networks; `make soak` tries thousands."""

import fuzz
import pytest

SEEDS = range(24)


@pytest.mark.parametrize("check", fuzz.CHECKS, ids=lambda check: check.__name__)
def test_random_networks_hold(check):
    for seed in SEEDS:
        fuzz.run(check, seed)
