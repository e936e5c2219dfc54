"""Data as people keep them: labels, files, folders of pictures, batches; right ones read alike, wrong ones told of."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from known import known
from measure_world import tensor_of
from safetensors.torch import save_file
from torch.utils.data import DataLoader, TensorDataset

from impq_opt.data import Dataset, load_data
from impq_opt.data.batch import Several, parts_of, prepare
from impq_opt.data.batches import tensors
from impq_opt.data.labels import as_labels
from impq_opt.errors import DataError

Image = pytest.importorskip("PIL.Image")
CPU = torch.device("cpu")


# -- labels ------------------------------------------------------------------------------------------------------------

WHOLE = [2, 0, 1, 2]


@pytest.mark.parametrize(
    "labels",
    [
        WHOLE,
        torch.tensor(WHOLE),
        torch.tensor(WHOLE, dtype=torch.uint8),
        np.array(WHOLE, dtype=np.int16),
        np.array(WHOLE, dtype=np.uint64),
        np.array(WHOLE, dtype=float),
        torch.tensor(WHOLE).bfloat16(),
        np.array(WHOLE)[:, None],
        np.array(WHOLE, dtype=np.float32)[:, None],
        np.eye(3)[WHOLE],
        torch.eye(3)[WHOLE],
        np.eye(3, dtype=bool)[WHOLE],
        ["2", "0", "1", "2"],
        np.array(["2", "0", "1", "2"])[:, None],
        np.array([b"2", b"0", b"1", b"2"]),
    ],
    ids=range(15),
)
def test_labels_of_every_clear_kind_are_class_numbers(labels: Any) -> None:
    given_labels = as_labels(labels, "data")
    assert given_labels.dtype == torch.int64
    assert given_labels.tolist() == WHOLE


def test_names_of_classes_are_numbers_where_their_order_is_said() -> None:
    assert as_labels(["dog", "cat", "cat"], "data", names=["cat", "dog"]).tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0.5, 1.0], r"sample 0: labels must be whole numbers, got 0.5"),
        ([0.0, np.nan], r"sample 1: labels must be whole numbers, got nan"),
        ([0.0, np.inf], r"sample 1: labels must be whole numbers, got inf"),
        ([1e30, 0.0], "labels must be class numbers"),
        ([[0.2, 0.8], [0.5, 0.5]], r"sample 0: a row of several labels must be one-hot, got \[0.2, 0.8\]"),
        ([[0, 1], [1, 1]], r"sample 1: a row of several labels must be one-hot, got \[1, 1\]"),
        (np.zeros((2, 2, 2)), r"labels must be whole numbers \(n,\), got \(2, 2, 2\)"),
        (np.zeros(2, dtype=complex), "labels must be whole numbers"),
        (["cat", "dog"], "sample 0: a label is a name, and which of the network's classes that is, is not said"),
        ([[0, 1], [2]], "one class number per sample"),
        (np.array([None, 1], dtype=object), "not objects"),
        (3, "labels must be whole numbers"),
    ],
)
def test_unclear_labels_are_told(labels: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as told:
        as_labels(labels, "data d")
    assert "\n" not in str(told.value)


def test_a_name_that_is_no_class_is_told() -> None:
    with pytest.raises(DataError, match=r"sample 1: a label is not among the classes that the data name, got 'cow'"):
        as_labels(["cat", "cow"], "data", names=["cat", "dog"])


# -- data sets ---------------------------------------------------------------------------------------------------------

X, Y = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
MASK = torch.tensor([[1, 1, 0]] * 6)
STRUCTURES: dict[str, Any] = {"tensor": X, "tuple": (X, MASK), "dict": {"x": X, "mask": MASK}}


def items(inputs: Any) -> Any:
    """The same samples, to be read one at a time."""
    if isinstance(inputs, dict):
        return [{**{k: v[row] for k, v in inputs.items()}, "label": Y[row]} for row in range(6)]
    one = (lambda row: inputs[row]) if isinstance(inputs, torch.Tensor) else (lambda row: tuple(x[row] for x in inputs))
    return [(one(row), int(Y[row])) for row in range(6)]


def same(one: Any, other: Any) -> bool:
    a, b = parts_of(one), parts_of(other)
    return type(one) is type(other) and a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("kind", STRUCTURES)
@given(rows=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_rows_have_the_structure_of_the_whole(kind: Any, rows: Any) -> None:
    whole, index = Dataset(STRUCTURES[kind], Y), torch.tensor(rows)
    read = Dataset(items(STRUCTURES[kind]))
    for data in (whole, read, whole.subset(torch.arange(6)), read.subset(torch.arange(6))):
        inputs, labels = data.rows(index)
        wanted = {name: part[index] for name, part in parts_of(STRUCTURES[kind]).items()}
        assert type(inputs) is type(STRUCTURES[kind])
        assert {k: v.tolist() for k, v in parts_of(inputs).items()} == {k: v.tolist() for k, v in wanted.items()}
        assert known(labels).tolist() == Y[index].tolist()


@given(sizes=st.integers(1, 7), rows=st.lists(st.integers(0, 5), min_size=1, max_size=8))
def test_several_tensors_are_cut_as_one_is(sizes: Any, rows: Any) -> None:
    together = prepare(STRUCTURES["dict"], CPU)
    assert isinstance(together, Several)
    assert len(together) == 6
    assert [len(part) for part in together.split(sizes)] == [len(part) for part in X.split(sizes)]
    assert torch.equal(torch.cat([part.kwargs["x"] for part in together.split(sizes)]), X)
    assert torch.equal(together[rows].kwargs["mask"], MASK[rows])
    assert together.to(CPU).device == CPU
    assert prepare(STRUCTURES["tuple"], CPU).args[0] is X


def numpy_of(batch: Any) -> Any:
    return {k: v.numpy() for k, v in batch.items()} if isinstance(batch, dict) else batch.numpy()


@pytest.mark.parametrize(
    ("data", "kind", "labelled"),
    [
        (X, "tensor", False),
        (X.numpy(), "tensor", False),
        ([X[:4], X[4:]], "tensor", False),
        ([(X[:4], Y[:4]), (X[4:], Y[4:])], "tensor", True),
        ([(X[:4].numpy(), Y[:4, None].numpy()), [X[4:], torch.eye(3)[Y[4:]]]], "tensor", True),
        ([(X[:4], None), (X[4:], None)], "tensor", False),
        (TensorDataset(X, Y), "tensor", True),
        (DataLoader(TensorDataset(X, Y), batch_size=4), "tensor", True),
        (DataLoader(TensorDataset(X), batch_size=4), "tensor", False),
        ([((X[:4], MASK[:4]), Y[:4]), ((X[4:], MASK[4:]), Y[4:])], "tuple", True),
        ({"x": X, "mask": MASK, "labels": Y}, "dict", True),
        ({"x": X, "mask": MASK}, "dict", False),
        (
            [{"x": X[:4], "mask": MASK[:4], "labels": Y[:4]}, {"x": X[4:], "mask": MASK[4:], "labels": Y[4:]}],
            "dict",
            True,
        ),
        ([({"x": X, "mask": MASK, "unused": None}, Y)], "dict", True),
        (DataLoader(items(STRUCTURES["dict"]), batch_size=4), "dict", True),
        ((part for part in [X[:4], X[4:]]), "tensor", False),
    ],
    ids=range(16),
)
def test_batches_of_every_kind_are_one_data_set(data: Any, kind: str, labelled: bool) -> None:
    inputs, labels = tensors(data, None).rows(torch.arange(6))
    assert same(inputs, STRUCTURES[kind])
    assert (known(labels).tolist() == Y.tolist()) if labelled else labels is None


def test_batches_are_read_until_there_are_enough() -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield {"x": X, "labels": Y}

    assert len(tensors(endless(), 13)) == 18


def broken(row: Any) -> None:
    raise OSError(f"no disk for {row}\nat all")


class Breaking:
    """A data set of the caller's own that raises."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, row: Any) -> Any:
        return X[0] if row < 2 else broken(row)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ([], "data: holds no samples"),
        (torch.empty(0, 3), "holds no samples"),
        (3, "must be a data set, tensors or an iterable of batches, got 'int'"),
        ("digits", "an iterable of batches, got 'digits' .load_data reads names"),
        ([3], "batch 0: a batch must be a tensor"),
        (["text"], "batch 0: a batch must be a tensor"),
        ([torch.zeros(3)], r"batch 0: a batch must have samples \(n, ...\), got \(3,\)"),
        ([torch.zeros(())], "batch 0: a batch must have samples"),
        ([(X, MASK, Y)], "inputs and labels must be a pair, got '3 of them' .several inputs go together"),
        ([(X, MASK)], "sample 0: a row of several labels must be one-hot"),
        ([(X, Y[:4])], r"batch 0: must have one label per input, got \(6, 4\)"),
        ([X, X[..., :2]], r"batch 1: must have samples of the shape of those before it, got \(\(2, 3\), \(2, 2\)\)"),
        ([{"x": X}, {"y": X}], "batch 1: must have samples of the shape of those before it"),
        ([{"labels": Y}], "batch 0: holds no inputs"),
        ([{"x": X, "text": ["a"] * 6}], "batch 0: text: must be a tensor or numbers of one shape, got 'list'"),
        ([{"x": X, "mask": MASK[:3]}], "must have as many samples in each input, got {'x': 6, 'mask': 3}"),
        ({"x": X, "mask": MASK[:3]}, "must have as many samples in each input, got {'x': 6, 'mask': 3}"),
        (np.array([None]), "must be a tensor or numbers"),
        (Breaking(), "data Breaking: sample 2: cannot be read, got 'no disk for 2'"),
        (Dataset([(X[0], 1), (X[0, 0], 1)]), "sample 1 has another shape than sample 0"),
        (Dataset([("text", 1)]), "sample 0: must be a tensor or numbers of one shape, got 'str'"),
        (Dataset([(X[0], "cat")]), "a label is a name"),
        (Dataset(torch.tensor([[0.0], [np.nan]])), "data tensors: sample 1: inputs must be finite, got nan"),
        (Dataset(torch.tensor([[0.0], [0.0], [-np.inf]])), "sample 2: inputs must be finite, got -inf"),
        (Dataset([torch.zeros(2), torch.tensor([0.0, np.inf])]), "sample 1: inputs must be finite, got inf"),
        (Dataset({"a": torch.zeros(2, 1), "b": torch.tensor([0.0, np.nan])}), "sample 1: b: inputs must be finite"),
    ],
    ids=range(26),
)
def test_data_that_cannot_be_read_are_told(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as told:
        read = tensors(data, None)
        read.rows(torch.arange(len(read)))
    assert "\n" not in str(told.value)


def test_a_mask_may_be_minus_infinity() -> None:
    mask = torch.tensor([[0.0, -np.inf]] * 6)
    assert torch.equal(Dataset({"x": X, "mask": mask}).rows(torch.arange(6))[0]["mask"], mask)


# -- files of arrays ---------------------------------------------------------------------------------------------------

TOKENS = np.arange(12).reshape(4, 3)
NUMBERS = np.linspace(0, 1, 12).reshape(4, 3)


def write(path: Any, arrays: Any) -> None:
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".npy":
        np.save(path, next(iter(arrays.values())))
    else:
        save_file({name: torch.from_numpy(np.asarray(a)) for name, a in arrays.items()}, path)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors"])
@pytest.mark.parametrize("name", ["images", "tokens", "inputs", "x", "input_ids", "anything"])
def test_tokens_stay_whole_numbers(tmp_path: Path, suffix: str, name: str) -> None:
    for dtype in (np.int64, np.int32, np.int16):
        write(tmp_path / f"d{suffix}", {name: TOKENS.astype(dtype)})
        data = load_data(str(tmp_path / f"d{suffix}"))
        assert isinstance(data.inputs, torch.Tensor)
        assert not data.inputs.is_floating_point()
        assert data.inputs.tolist() == TOKENS.tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", ">f8"])
def test_floats_are_read_as_float32(tmp_path: Path, dtype: Any) -> None:
    np.savez(tmp_path / "d.npz", images=NUMBERS.astype(dtype), labels=np.arange(4.0)[:, None])
    data = load_data(str(tmp_path / "d.npz"))
    assert tensor_of(data).dtype == torch.float32
    assert torch.equal(tensor_of(data), torch.from_numpy(NUMBERS.astype(dtype).astype(np.float32)))
    assert known(data.labels).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_pictures_of_whole_numbers_are_floats(tmp_path: Path, dtype: Any) -> None:
    pictures = np.arange(4 * 1 * 3 * 3).reshape(4, 1, 3, 3)
    np.savez(tmp_path / "d.npz", images=pictures.astype(dtype))
    assert torch.equal(tensor_of(load_data(str(tmp_path / "d.npz"))), torch.from_numpy(pictures).float())


def test_several_arrays_are_inputs_by_keyword_and_splits_are_by_name(tmp_path: Path) -> None:
    arrays = {"input_ids": TOKENS, "attention_mask": TOKENS > 2, "labels": np.eye(4)}
    for suffix in (".npz", ".safetensors"):
        write(tmp_path / f"d{suffix}", arrays)
        data = load_data(str(tmp_path / f"d{suffix}"))
        assert isinstance(data.inputs, dict)
        assert {name: part.tolist() for name, part in data.inputs.items()} == {
            "input_ids": TOKENS.tolist(), "attention_mask": (TOKENS > 2).tolist()
        }  # fmt: skip
        assert known(data.labels).tolist() == [0, 1, 2, 3]
    named: dict[str, Any] = {
        f"{name}_{split}": array[k:] for k, split in enumerate(("train", "test")) for name, array in arrays.items()
    }
    np.savez(tmp_path / "s.npz", classes=np.array(list("abcd")), **named)
    for k, split in enumerate(("train", "test")):
        data = load_data(str(tmp_path / "s.npz"), split)
        assert len(data) == 4 - k
        assert known(data.labels).tolist() == [0, 1, 2, 3][k:]
        assert data.classes == 4
    np.savez(tmp_path / "n.npz", images=NUMBERS, labels=np.array(["b", "a", "b", "b"]), classes=np.array(["a", "b"]))
    assert known(load_data(str(tmp_path / "n.npz")).labels).tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"images": np.array([{}, {}], dtype=object)}, "holds Python objects, which are not unpickled"),
        ({"images": NUMBERS, "labels": np.array([None], dtype=object)}, "holds Python objects"),
        ({"images": np.array(["a", "b"])[:, None]}, r"images: inputs must be numbers \(n, ...\)"),
        ({"images": NUMBERS.astype(complex)}, r"images: inputs must be numbers \(n, ...\)"),
        ({"images": np.zeros((2, 2), "M8[s]")}, r"images: inputs must be numbers \(n, ...\)"),
        ({"images": np.full((2, 2), 2**64 - 1, np.uint64)}, "whole numbers must fit into 64 bits"),
        ({"images": np.array([[0.0], [np.nan]])}, "images: sample 1: inputs must be finite, got nan"),
        ({"images": np.zeros(3)}, "needs an array 'images'"),
        ({"labels": np.zeros(3)}, "needs an array 'images'"),
        ({"a": np.zeros(3), "b": np.float64(3)}, "needs an array 'images'"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, "as many samples in each input, got {'a': 3, 'b': 4}"),
        ({"images": NUMBERS, "labels": np.arange(3)}, r"must have one label per input, got \(4, 3\)"),
        ({"images": NUMBERS, "labels": np.array([0, 1, 2, 0.5])}, "labels: sample 3: labels must be whole numbers"),
        ({"images": NUMBERS, "labels": np.array(list("abca"))}, "labels: sample 0: a label is a name"),
        ({"images": np.zeros((0, 3))}, "holds no samples"),
    ],
    ids=range(15),
)
def test_arrays_that_are_no_data_are_told(tmp_path: Path, arrays: Any, said: str) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=said) as told:
        load_data(str(tmp_path / "d.npz"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["cut.npz", "cut.npy", "cut.safetensors", "none.npy"])
def test_cut_files_are_told(tmp_path: Path, name: str) -> None:
    write(tmp_path / f"whole{name[name.index('.') :]}", {"images": NUMBERS})
    if name != "none.npy":
        (tmp_path / name).write_bytes((tmp_path / f"whole{name[3:]}").read_bytes()[:90])
    with pytest.raises(DataError, match="no such file" if name == "none.npy" else "missing, truncated or foreign file"):
        load_data(str(tmp_path / name))


# -- pictures ----------------------------------------------------------------------------------------------------------

GREY = np.linspace(0, 255, 20 * 20).round().astype(np.uint8).reshape(20, 20)
COLOUR = np.stack([GREY, GREY.T, 255 - GREY], axis=2)


def picture_folder(folder: Any, **pictures: Any) -> Any:
    """Write a picture into a folder of its own for each name: classes a, b, ..."""
    for name, picture in pictures.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        picture.save(folder / name / "1.png")
    return folder


def palette(seen_through: bool) -> Any:
    picture = Image.fromarray(GREY).convert("P")
    picture.putpalette([channel for value in range(256) for channel in (value, 255 - value, 7)])
    if seen_through:
        picture.info["transparency"] = bytes([0, 128] * 128)
    return picture


def test_grey_of_sixteen_bits_keeps_its_values(tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16) * 257
    picture_folder(tmp_path, a=Image.fromarray(GREY), b=Image.fromarray(deep))
    for name in "cd":
        (tmp_path / name).mkdir()
    Image.fromarray(deep.astype(np.int32)).save(tmp_path / "c" / "1.tif")
    Image.fromarray((GREY / 255).astype(np.float32)).save(tmp_path / "d" / "1.tif")
    Image.fromarray(deep.astype(">u2")).save(tmp_path / "d" / "2.tif")
    images, labels = load_data(str(tmp_path), size=16).arrays()
    assert labels.tolist() == [0, 1, 2, 3, 3]
    assert images.shape == (5, 3, 16, 16)
    for other in images[1:]:
        torch.testing.assert_close(other, images[0], rtol=0, atol=0.02)  # 8 bits are rounded after resizing
    fine = (np.arange(400).reshape(20, 20) + 30000).astype(np.uint16)  # differences below one of 8 bits
    picture_folder(tmp_path / "fine", a=Image.fromarray(fine))
    assert len(load_data(str(tmp_path / "fine"), size=16).arrays()[0][0, 0].unique()) > 100


@pytest.mark.parametrize(
    ("picture", "values"),
    [
        (Image.fromarray(GREY), np.stack([GREY] * 3, axis=2)),
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(np.dstack([COLOUR, GREY])), COLOUR),  # transparent pixels keep their colour
        (Image.fromarray(np.dstack([GREY, GREY])), np.stack([GREY] * 3, axis=2)),
        (palette(False), np.dstack([GREY, 255 - GREY, np.full_like(GREY, 7)])),
        (palette(True), np.dstack([GREY, 255 - GREY, np.full_like(GREY, 7)])),
        (Image.fromarray(GREY > 100), np.stack([(GREY > 100) * np.uint8(255)] * 3, axis=2)),
    ],
    ids=["grey", "colour", "alpha", "grey alpha", "palette", "transparent palette", "bits"],
)
def test_pictures_of_every_kind_are_three_colours(tmp_path: Path, picture: Any, values: Any) -> None:
    picture_folder(tmp_path / "one", a=picture)
    picture_folder(tmp_path / "plain", a=Image.fromarray(values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, _ = load_data(str(tmp_path / "one"), size=16).arrays()
    assert torch.equal(images, load_data(str(tmp_path / "plain"), size=16).arrays()[0])


def test_pictures_are_prepared_as_torchvision_does(tmp_path: Path) -> None:
    from impq_opt.data.pictures import IMAGENET
    from impq_opt.data.torchvision import torchvision_module

    transforms, datasets = torchvision_module("transforms"), torchvision_module("datasets")
    picture_folder(tmp_path, a=Image.fromarray(COLOUR), b=Image.fromarray(GREY))
    picture_folder(tmp_path / "a" / "deeper", inside=Image.fromarray(COLOUR[::-1].copy()))
    steps = [transforms.Resize(18), transforms.CenterCrop(16), transforms.ToTensor(), transforms.Normalize(*IMAGENET)]
    theirs = datasets.ImageFolder(str(tmp_path), transforms.Compose(steps))
    images, labels = load_data(str(tmp_path), size=16).arrays()
    assert torch.equal(images, torch.stack([image for image, _ in theirs]))
    assert labels.tolist() == [label for _, label in theirs]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("cut.png", lambda whole: whole[:-40], "cut.png: is a broken file or no picture"),
        ("cut.jpg", lambda whole: whole[:60], "cut.jpg: is a broken file or no picture"),
        ("empty.png", lambda whole: b"", "empty.png: is a broken file or no picture"),
        ("text.bmp", lambda whole: b"not a picture\nat all", "text.bmp: is a broken file or no picture"),
    ],
)
def test_a_broken_picture_is_named(tmp_path: Path, name: str, content: Callable[..., Any], said: str) -> None:
    picture_folder(tmp_path, a=Image.fromarray(COLOUR))
    Image.fromarray(COLOUR).save(tmp_path / f"whole{name[-4:]}")
    (tmp_path / "a" / name).write_bytes(content((tmp_path / f"whole{name[-4:]}").read_bytes()))
    data = load_data(str(tmp_path), size=16)
    with pytest.raises(DataError, match=said) as told:
        data.arrays()
    assert "\n" not in str(told.value)


def test_values_without_a_white_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for values in (np.full((9, 9), 70000, np.int32), np.full((9, 9), 3.0, np.float32), np.full((9, 9), np.nan, "f4")):
        Image.fromarray(values).save(tmp_path / "a" / "1.tif")
        with pytest.raises(DataError, match=r"1.tif: grey values must be from 0 to"):
            load_data(str(tmp_path), size=8).arrays()


def test_hidden_and_empty_folders_are_no_classes(tmp_path: Path) -> None:
    picture_folder(tmp_path, bee=Image.fromarray(GREY), cat=Image.fromarray(GREY))
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".git"):
        picture_folder(tmp_path, **{name: Image.fromarray(GREY)})
    for name in ("ant", "dog"):
        (tmp_path / name).mkdir()
    (tmp_path / "dog" / "notes.txt").write_text("none yet")
    for name in (".DS_Store", "._1.png", "Thumbs.db"):
        (tmp_path / "cat" / name).write_bytes(b"x")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "cat" / "@eaDir").mkdir()
    (tmp_path / "cat" / "@eaDir" / "1.png").write_bytes(b"x")
    data = load_data(str(tmp_path), size=16)
    assert data.arrays()[1].tolist() == [0, 1]
    assert data.classes == 2
    hidden, empty = data.notes
    assert hidden.startswith("folders '.git', '.ipynb_checkpoints', '@eaDir' and 1 more")
    assert "'ant', 'dog'" in empty
    assert "no class" in empty


def test_classes_are_those_of_training(tmp_path: Path) -> None:
    for part, names in (("train", "abcd"), ("val", "acd")):
        picture_folder(tmp_path / part, **{name: Image.fromarray(GREY) for name in names})
    (tmp_path / "val" / "b").mkdir()
    data = load_data(str(tmp_path), "test", size=16)
    assert data.arrays()[1].tolist() == [0, 2, 3]
    assert data.classes == 4
    assert data.notes == ()
    picture_folder(tmp_path / "val", cc=Image.fromarray(GREY))
    with pytest.raises(DataError, match=r"has a class that 'train' has not, got 'cc'"):
        load_data(str(tmp_path), "validation", size=16)


def test_a_folder_without_classes_is_told(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "1.png")
    (tmp_path / ".hidden").mkdir()
    with pytest.raises(DataError, match=r"one sub-folder of pictures per class, got \['.hidden', '1.png'\]"):
        load_data(str(tmp_path))
