"""What is no layer, in C: loops that are written out for their shapes."""

from __future__ import annotations

import numpy as np

from impq_opt.compile.program import Add, Concat, Flatten, Move, Pool
from impq_opt.compile.targets.c.draft import Draft
from impq_opt.compile.targets.c.places import type_of

__all__ = ["write_add", "write_concat", "write_flatten", "write_move", "write_pool"]


def write_add(draft: Draft, number: int, add: Add) -> None:
    """Write an addition, or a change of scale."""
    target, rescale = draft.program.tensors[add.target], add.rescale
    channels, kind = target.shape[0], type_of(target)
    terms = []
    for place, (source, multipliers) in enumerate(zip(add.sources, rescale.multipliers, strict=True)):
        tensor = draft.program.tensors[source]
        wide = bool((np.abs(multipliers) >= 2**31).any())
        factor = draft.shared(f"add{number}_multipliers{place}", "int64_t" if wide else "int32_t", multipliers)
        value = f"x{place}[i + c]" if not tensor.zero else f"(x{place}[i + c] - ({tensor.zero}))"
        terms.append(f"{value} * (int64_t){factor}")
        draft.body.append(
            f"    {'{' if not place else ' '} const {type_of(tensor)} *x{place} = {draft.pointer(source)};"
        )
    terms.append(draft.shared(f"add{number}_addends", "int64_t", rescale.addends))
    draft.body += [
        f"      {kind} *y = {draft.pointer(add.target)};",
        "      int32_t c;",
        f"      for (i = 0; i < {target.elements}; i += {channels})",
        f"          for (c = 0; c < {channels}; c++)",
        f"              y[i + c] = ({kind})rescaled({' + '.join(terms)},",
        f"                  {rescale.shift}, {rescale.low}, {rescale.high}); }}",
    ]


def write_pool(draft: Draft, number: int, pool: Pool) -> None:
    """Write a pool."""
    source, target = draft.program.tensors[pool.source], draft.program.tensors[pool.target]
    (channels, rows, columns), (_, out_rows, out_columns) = source.shape, target.shape
    (above, _), (left, _) = pool.padding
    largest = pool.kind == "max"
    taken = f"x[(y * {columns} + z) * {channels} + c]"
    step = f"value = {taken} > value ? {taken} : value;" if largest else f"value += {taken} - ({source.zero});"
    draft.body += [
        f"    {{ const {type_of(source)} *x = {draft.pointer(pool.source)};",
        f"      {type_of(target)} *to = {draft.pointer(pool.target)};",
        "      int32_t row, column, c, j, y, z, value;",
        f"      for (row = 0; row < {out_rows}; row++)",
        f"          for (column = 0; column < {out_columns}; column++)",
        f"              for (c = 0; c < {channels}; c++) {{",
        f"                  value = {source.low if largest else 0};",
        f"                  for (i = 0; i < {pool.kernel[0]}; i++)",
        f"                      for (j = 0; j < {pool.kernel[1]}; j++) {{",
        f"                          y = row * {pool.stride[0]} - {above} + i * {pool.dilation[0]};",
        f"                          z = column * {pool.stride[1]} - {left} + j * {pool.dilation[1]};",
        f"                          if (y >= 0 && y < {rows} && z >= 0 && z < {columns})",
        f"                              {step}",
        "                      }",
        f"                  *to++ = ({type_of(target)})value;",
        "              } }",
    ]


def write_move(draft: Draft, number: int, move: Move) -> None:
    """Write channels, rows and columns picked by their places."""
    source, target = draft.program.tensors[move.source], draft.program.tensors[move.target]
    shape, out = (*source.shape, 1, 1)[:3], (*target.shape, 1, 1)[:3]
    rows, columns = (place if len(place) else np.zeros(1, dtype=np.int64) for place in (move.rows, move.columns))
    whole = np.array_equal(move.channels, np.arange(shape[0]))  # pixels are kept, and copied as they are
    named = (*(() if whole else (("channels", move.channels),)), ("rows", rows), ("columns", columns))
    tables = [draft.array(f"move{number}_{what}", "int16_t", place.tolist(), "tables") for what, place in named]
    places = [
        f"{table}[{index}]" for table, index in zip(tables, ("i", "j") if whole else ("c", "i", "j"), strict=True)
    ]
    outside, channel = " || ".join(f"{place} < 0" for place in places), "c" if whole else places[0]
    draft.body += [
        f"    {{ const {type_of(source)} *x = {draft.pointer(move.source)};",
        f"      {type_of(target)} *to = {draft.pointer(move.target)};",
        "      int32_t c, j;",
        f"      for (i = 0; i < {out[1]}; i++)",
        f"          for (j = 0; j < {out[2]}; j++, to += {out[0]})",
    ]
    taken = f"x[({places[-2]} * {shape[2]} + {places[-1]}) * {shape[0]} + {channel}]"
    if whole:
        draft.body += [
            f"              if ({outside})",
            f"                  for (c = 0; c < {out[0]}; c++)",
            f"                      to[c] = {source.zero};",
            "              else",
            f"                  for (c = 0; c < {out[0]}; c++)",
            f"                      to[c] = {taken}; }}",
        ]
    else:
        draft.body += [
            f"              for (c = 0; c < {out[0]}; c++)",
            f"                  to[c] = {outside} ? {source.zero} : {taken}; }}",
        ]


def write_concat(draft: Draft, number: int, concat: Concat) -> None:
    """Write a concatenation."""
    target = draft.program.tensors[concat.target]
    channels, start = target.shape[0], 0
    for source in concat.sources:
        own = draft.program.tensors[source].shape[0]
        draft.body += [
            f"    {{ const {type_of(draft.program.tensors[source])} *x = {draft.pointer(source)};",
            f"      {type_of(target)} *to = {draft.pointer(concat.target)} + {start};",
            "      int32_t c;",
            f"      for (i = 0; i < {target.elements // channels}; i++)",
            f"          for (c = 0; c < {own}; c++)",
            f"              to[i * {channels} + c] = x[i * {own} + c]; }}",
        ]
        start += own


def write_flatten(draft: Draft, number: int, flatten: Flatten) -> None:
    """Write a flattened copy, where there is one."""
    if flatten.target in draft.places.aliases:
        return
    source = draft.program.tensors[flatten.source]
    channels, inner = source.shape[0], source.elements // source.shape[0]
    draft.body += [
        f"    {{ const {type_of(source)} *x = {draft.pointer(flatten.source)};",
        f"      {type_of(source)} *to = {draft.pointer(flatten.target)};",
        "      int32_t c;",
        f"      for (c = 0; c < {channels}; c++)",
        f"          for (i = 0; i < {inner}; i++)",
        f"              *to++ = x[i * {channels} + c]; }}",
    ]
