"""Runs trace the small network once: pausing and going on, which they do often, are not about tracing."""

from __future__ import annotations

import pytest
from rounds_world import traced_once


@pytest.fixture(autouse=True)
def _traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impq_opt.rounds.loop.traced_for", traced_once)
