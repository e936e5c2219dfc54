"""Tables of pandas, where there is one: a row a group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from impq_opt.errors import MissingPackageError
from impq_opt.groups.arrays import KIND_NAMES
from impq_opt.groups.layout import Layout

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data_frame", "group_columns"]


def data_frame(columns: Mapping[str, Any], *, index: str | None = None) -> pd.DataFrame:
    """Return columns of one length as a table; one of them may be its index.

    Raises
    ------
    MissingPackageError
        Without pandas.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError:
        raise MissingPackageError("pandas", "to_frame()", "pandas") from None
    # Copies: arrays that are held cannot be written to, and a table of one's own can.
    frame = pd.DataFrame({name: np.array(c) if isinstance(c, np.ndarray) else c for name, c in columns.items()})
    return frame if index is None else frame.set_index(index)


def group_columns(layout: Layout) -> dict[str, Any]:
    """Return name, layer, kind and size (G,) of each group, and its type where types are known."""
    names = layout.names
    columns = {
        "name": list(names),
        "layer": np.array(names.layers, dtype=object)[names.label_of],
        "kind": np.array(KIND_NAMES, dtype=object)[(~layout.weights()).astype(np.int64)],
        "size": layout.sizes,
    }
    if layout.types:
        types = [layout.types.get(label, "") for label in names.labels]
        columns["type"] = np.array(types, dtype=object)[names.label_of]
    return columns
