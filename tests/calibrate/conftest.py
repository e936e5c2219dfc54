"""Each network is traced once for all calibrations of it: the graph is looked at and not changed."""

from __future__ import annotations

from typing import Any

import pytest

from impq_opt.calibrate import api
from impq_opt.tracing.trace import trace

_TRACED: dict[int, Any] = {}  # by networks that the worlds keep


@pytest.fixture(autouse=True)
def _traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(network: Any, example: Any) -> Any:
        if id(network) not in _TRACED:
            _TRACED[id(network)] = network, trace(network, example)
        return _TRACED[id(network)][1]

    monkeypatch.setattr(api, "trace", once)
