"""A sample of the good networks that are broken in one place; `make soak` breaks thousands."""

import breaking

SEEDS = range(160)


def test_remedies_work_and_the_one_that_undoes_the_break_is_among_them():
    found = breaking.verdicts(SEEDS)
    assert [v.broken for v in found if v.broken] == []
    assert [v.hiding for v in found if v.hiding] == []
    assert len(found) > 0.9 * len(SEEDS)
    assert sum(bool(v.remedies) for v in found) >= 0.9 * len(found)
    assert sum(v.place is not None for v in found) >= 0.8 * len(found)
    assert sum(v.place == 0 for v in found) >= 0.6 * len(found)
