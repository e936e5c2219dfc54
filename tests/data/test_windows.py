"""Texts as windows of tokens, with a tokenizer that takes each letter for one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from impq_opt.data import load_data, text
from impq_opt.data.decisions import IGNORED
from impq_opt.data.text import Tokens
from impq_opt.errors import DataError, OptionError

BEGIN, END, MASK = 0, 1, 2
LETTERS = "abcdefghijklmnopqrstuvwxyz \n"


class Letters:
    """Tokens 3 and up are letters."""

    def __init__(self, before: list[int], behind: list[int], mask: int | None = None) -> None:
        self.before, self.behind, self.mask_token_id = before, behind, mask

    def __call__(self, part: str, *, add_special_tokens: bool = True, verbose: bool = True) -> SimpleNamespace:
        ids = [3 + LETTERS.index(letter) for letter in part]
        return SimpleNamespace(input_ids=[*self.before, *ids, *self.behind] if add_special_tokens else ids)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    return path


def _use(monkeypatch: pytest.MonkeyPatch, tokenizer: Letters) -> None:
    monkeypatch.setattr(text, "tokenizer_of", lambda folder: tokenizer)


@pytest.mark.parametrize("before", [[], [BEGIN]], ids=["plain", "begin"])
def test_causal_windows_have_the_next_token_as_label(
    monkeypatch: pytest.MonkeyPatch, file: Path, before: list[int]
) -> None:
    _use(monkeypatch, Letters(before, [END]))
    data = load_data(str(file), tokens=Tokens(file.parent, "causal", 31, window=16))
    inputs, labels = data.rows(torch.arange(len(data)))
    assert labels is not None
    ids = inputs["input_ids"]
    assert ids.shape == labels.shape == (len(data), 16)
    whole = torch.tensor(Letters([], [])(file.read_text()).input_ids)
    own = ids[:, len(before) :].reshape(-1)
    assert own.tolist() == whole[: len(own)].tolist()  # nothing is left out between windows
    assert (ids[:, : len(before)] == BEGIN).all()
    assert labels[:, :-1].tolist() == ids[:, 1:].tolist()
    assert labels[:-1, -1].tolist() == ids[1:, len(before)].tolist()
    assert data.notes == (f"text.txt: {len(data)} windows of 16 tokens",)


def test_masked_windows_count_where_they_are_masked(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    _use(monkeypatch, Letters([BEGIN], [END], MASK))
    tokens = Tokens(file.parent, "masked", 31, window=22)
    data = load_data(str(file), tokens=tokens)
    inputs, labels = data.rows(torch.arange(len(data)))
    assert labels is not None
    ids = inputs["input_ids"]
    assert ((ids == MASK) == (labels != IGNORED)).all()
    assert ((labels != IGNORED).sum(1) == 3).all()  # 15 % of 20
    restored = torch.where(labels == IGNORED, ids, labels)[:, 1:-1].reshape(-1)
    assert restored.tolist() == Letters([], [])(file.read_text()).input_ids[: len(restored)]
    again = load_data(str(file), tokens=tokens)
    assert again.digest() == data.digest()


def test_parts_share_no_token(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    _use(monkeypatch, Letters([], []))
    file.write_text(" ".join(f"{chr(97 + k // 26 % 26)}{chr(97 + k % 26)}" for k in range(400)))
    tokens = Tokens(file.parent, "states", 31, window=12)
    parts = [load_data(str(file), split, tokens=tokens) for split in ("train", "validation", "test")]
    whole = Letters([], [])(file.read_text()).input_ids
    place = 0
    for part in parts:
        inputs, labels = part.rows(torch.arange(len(part)))
        own = inputs["input_ids"].reshape(-1).tolist()
        assert labels is None
        start = next(k for k in range(place, len(whole)) if whole[k : k + len(own)] == own)
        place = start + len(own)
    sizes = [len(part) for part in parts]
    assert sizes[0] == pytest.approx(2 * sizes[1], abs=2)
    assert sizes[1] == pytest.approx(sizes[2], abs=1)


def test_what_is_wrong_with_a_text_is_told(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    _use(monkeypatch, Letters([], []))
    tokens = Tokens(file.parent, "causal", 31, longest=64, window=16)
    with pytest.raises(DataError, match=r"missing\.txt: no such file"):
        load_data(str(file.with_name("missing.txt")), tokens=tokens)
    with pytest.raises(OptionError, match=r"is text, which a model's tokenizer reads.*hf:FOLDER"):
        load_data(str(file))
    with pytest.raises(OptionError, match="window: is longer than the 64 positions of the model, got 65"):
        Tokens(file.parent, "causal", 31, longest=64, window=65)
    with pytest.raises(DataError, match="has tokens that the model does not embed: it has 9, got 30"):
        load_data(str(file), tokens=Tokens(file.parent, "causal", 9, window=16))
    with pytest.raises(DataError, match=r"\(validation\): is too short for one window of 999 tokens, got \d+ \("):
        load_data(str(file), "validation", tokens=Tokens(file.parent, "causal", 31, window=999))
    with pytest.raises(DataError, match="has no token for what is masked"):
        load_data(str(file), tokens=Tokens(file.parent, "masked", 31, window=16))
    file.write_text(" \n")
    with pytest.raises(DataError, match=r"text\.txt: is empty"):
        load_data(str(file), tokens=tokens)
    file.write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"text\.txt: byte 3: is no text in UTF-8"):
        load_data(str(file), tokens=tokens)
