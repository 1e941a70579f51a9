"""Each rank is drawn with its own shard and gradient, and all of them with the same mean."""

import pytest
import torch

from blitz_helpers import plot_ranks, show

SHARDS = [torch.zeros(4, 1, 8, 8), torch.ones(2, 1, 8, 8)]
GRADIENTS = [torch.tensor([0.5, -0.1]), torch.tensor([0.1, 0.3])]


def bars(inset):
    return [bar.get_height() for bar in inset.patches]


def test_each_rank_has_its_own_shard_and_gradient_and_the_same_mean():
    first, own, mean, second, other, same = plot_ranks(SHARDS, GRADIENTS).child_axes
    assert first.get_images()[0].get_array().tolist() == torch.zeros(8, 32).tolist()
    assert second.get_images()[0].get_array().tolist() == torch.ones(8, 16).tolist()
    assert bars(own) == pytest.approx([0.5, -0.1])
    assert bars(other) == pytest.approx([0.1, 0.3])
    assert bars(mean) == bars(same) == pytest.approx([0.3, 0.1])
    assert len({inset.get_ylim() for inset in (own, other, mean, same)}) == 1


def test_words_give_every_number_of_the_picture():
    assert show(plot_ranks(SHARDS, GRADIENTS)).alt == (
        "2 ranks with equal weights and a shard each. "
        "Rank 0 has 4 images; its own gradient: 0.500, \N{MINUS SIGN}0.100. "
        "Rank 1 has 2 images; its own gradient: 0.100, 0.300. "
        "After all_reduce, each has the mean: 0.300, 0.100."
    )


def test_three_ranks_divide_by_three():
    ax = plot_ranks([*SHARDS, SHARDS[0]], [*GRADIENTS, GRADIENTS[0]])
    texts = [text.get_text() for text in ax.texts]
    assert "all_reduce: add up, then divide by 3" in texts
    assert {"rank 0", "rank 1", "rank 2"} < set(texts)


def test_of_a_large_shard_six_images_are_drawn_and_all_are_counted():
    ax = plot_ranks([torch.zeros(9, 1, 8, 8)] * 2, GRADIENTS)
    assert ax.child_axes[0].get_images()[0].get_array().shape == (8, 48)
    assert "Rank 0 has 9 images" in show(ax).alt


def test_gradients_of_zero_on_a_graph_are_taken():
    zeros = torch.zeros(2, requires_grad=True)
    plot_ranks(SHARDS, [zeros, zeros]).figure.canvas.draw()


@pytest.mark.parametrize(
    ("shards", "gradients", "message"),
    [
        (SHARDS[:1], GRADIENTS[:1], "1 shards and 1 gradients do not fit"),
        (SHARDS, GRADIENTS[:1], "2 shards and 1 gradients do not fit"),
        ([SHARDS[0], SHARDS[1][0]], GRADIENTS, r"images\[1\] has the shape \(1, 8, 8\)"),
        ([SHARDS[0][:0], SHARDS[1]], GRADIENTS, r"images\[0\] has the shape \(0, 1, 8, 8\)"),
        (SHARDS, [GRADIENTS[0], GRADIENTS[1][:1]], r"gradients\[1\] has the shape \(1,\)"),
        (SHARDS, [GRADIENTS[0][:0]] * 2, r"gradients\[0\] has the shape \(0,\)"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(shards, gradients, message):
    with pytest.raises(ValueError, match=message):
        plot_ranks(shards, gradients)
