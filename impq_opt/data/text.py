"""Text as windows of tokens: what language models are measured and judged on.

A text is cut into parts first (the first half for ``train``, a quarter each for ``validation`` and ``test``), each into
windows of equal length that do not overlap. So no token of a test is seen in measuring, and no window is padded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impq_opt.data.dataset import Dataset
from impq_opt.data.decisions import IGNORED
from impq_opt.data.parts import ALL
from impq_opt.data.transformers import tokenizer_of
from impq_opt.errors import DataError, OptionError

__all__ = ["KINDS", "TEXT", "WINDOW", "Tokens", "load_text"]

TEXT = (".txt", ".text", ".md")
WINDOW = 256
MASKED = 0.15  # of the tokens of a window (Devlin et al. 2019)
KINDS = ("causal", "masked", "states")
_PIECE = 1 << 20  # characters that are turned into tokens at once


@dataclass(frozen=True)
class Tokens:
    """How a model takes text.

    Parameters
    ----------
    folder : Path
        Where its tokenizer is.
    kind : {"causal", "masked", "states"}
        Whether it says which token comes next, which one is masked, or neither.
    vocabulary : int
        Tokens that it embeds.
    longest : int, optional
        Most tokens that it takes, where it says so.
    window : int
        Tokens of a sample.
    """

    folder: Path
    kind: str
    vocabulary: int
    longest: int | None = None
    window: int = WINDOW

    def __post_init__(self) -> None:
        if self.window < 2:
            raise OptionError("must be at least 2 tokens", where="window", value=self.window)
        if self.longest is not None and self.window > self.longest:
            raise OptionError(
                f"is longer than the {self.longest} positions of the model", where="window", value=self.window,
                hint=f"at most {self.longest}",
            )  # fmt: skip


def load_text(path: Path, tokens: Tokens, split: str | None = None) -> Dataset:
    """Return the windows of a text, or of a part of it, as a data set of dicts.

    Of a causal model ``input_ids`` (n, window) and as labels the token behind each; of a masked one ``input_ids`` of
    which 15 % are masked, drawn with seed 0, and labels there, :data:`~impq_opt.data.decisions.IGNORED` elsewhere; of
    one that gives states no labels. Special tokens that the tokenizer puts around a text stand around each window.

    Parameters
    ----------
    path : Path
        In UTF-8.
    tokens : Tokens
    split : {"train", "validation", "test", "all"}, optional
        The first half, the quarter behind it, the last one; or all of it, as unless given.

    Raises
    ------
    DataError
        A text that cannot be read, is empty or too short for one window, or has tokens that the model does not embed.
    FileError
        A folder without a tokenizer.
    """
    part = _part(_read(path), split or ALL)
    tokenizer = tokenizer_of(tokens.folder)
    before, behind = _around(tokenizer)
    if tokens.kind == "causal":
        behind = []
    ids = _ids(tokenizer, part)
    where = f"data {path}"
    if len(ids) and int(ids.max()) >= tokens.vocabulary:
        raise DataError(
            f"has tokens that the model does not embed: it has {tokens.vocabulary:,}", where=where,
            value=int(ids.max()), hint="is the tokenizer the model's own?",
        )  # fmt: skip
    room = tokens.window - len(before) - len(behind)
    next_one = int(tokens.kind == "causal")
    count = (len(ids) - next_one) // room if room > 0 else 0
    if count < 1:
        raise DataError(
            f"is too short for one window of {tokens.window} tokens", where=f"{where} ({split or ALL})",
            value=len(ids), hint="a longer text, or shorter windows",
        )  # fmt: skip
    given = ids[: count * room].view(count, room)
    wide = [torch.tensor(part).expand(count, -1) for part in (before, behind)]
    inputs = torch.cat([wide[0].long(), given, wide[1].long()], dim=1)
    labels: Tensor | None = None
    if next_one:
        follows = ids[1 : count * room + 1].view(count, room)
        labels = torch.cat([inputs[:, 1 : len(before) + 1], follows], dim=1)
        labels[:, : max(0, len(before) - 1)] = IGNORED  # special tokens follow each other whatever the text
    elif tokens.kind == "masked":
        inputs, labels = _masked(inputs, len(before), room, tokenizer, where)
    note = f"{path.name}: {count:,} windows of {tokens.window} tokens" + (
        "" if split in (None, ALL) else f", of its part {split!r}"
    )
    name = f"{path}[{tokens.window}]/{split or ALL}"
    return Dataset({"input_ids": inputs}, labels, name=name, notes=(note,))


def _read(path: Path) -> str:
    where = f"data {path}"
    if not os.path.isfile(path):
        raise DataError("no such file", where=where)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError("is no text in UTF-8", where=f"{where}: byte {error.start}") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=where) from None
    if not text.strip():
        raise DataError("is empty", where=where)
    return text


def _part(text: str, split: str) -> str:
    """Return a part of a text, cut between words."""
    shares = {"train": (0.0, 0.5), "validation": (0.5, 0.75), "test": (0.75, 1.0), ALL: (0.0, 1.0)}[split]
    places = [0 if share == 0 else _word(text, round(share * len(text))) for share in shares]
    return text[places[0] : places[1]]


def _word(text: str, place: int) -> int:
    while place < len(text) and not text[place].isspace():
        place += 1
    return place


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return the special tokens that stand before and behind a text."""
    plain = tokenizer("a", add_special_tokens=False).input_ids
    whole = tokenizer("a").input_ids
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start], whole[start + len(plain) :]
    return [], []


def _ids(tokenizer: Any, text: str) -> Tensor:
    """Return the tokens (m,) of a text, some of it at a time: one long text takes more than its length in time."""
    ids: list[int] = []
    start = 0
    while start < len(text):
        end = _word(text, min(start + _PIECE, len(text)))
        ids += tokenizer(text[start:end], add_special_tokens=False, verbose=False).input_ids
        start = end
    return torch.tensor(ids, dtype=torch.int64)


def _masked(inputs: Tensor, start: int, room: int, tokenizer: Any, where: str) -> tuple[Tensor, Tensor]:
    """Return windows with some of their tokens masked, and these as labels."""
    if tokenizer.mask_token_id is None:
        raise DataError("has no token for what is masked", where=f"{where}: tokenizer")
    generator = torch.Generator().manual_seed(0)
    masked = max(1, round(MASKED * room))
    places = start + torch.rand(len(inputs), room, generator=generator).argsort(1)[:, :masked]
    labels = torch.full_like(inputs, IGNORED).scatter_(1, places, inputs.gather(1, places))
    return inputs.scatter(1, places, tokenizer.mask_token_id), labels
