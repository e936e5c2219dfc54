"""The network that most of these tests share is traced once for all of them."""

from __future__ import annotations

from measure_world import digits_traced_once

__all__ = ["digits_traced_once"]
