"""A question as a strategy sees it: rows of whole numbers, float64 damages, pins folded in, ties merged."""

from __future__ import annotations

from impq_opt.instance.instance import Block, Budget, Direction, Instance, RankOne, TieBlock

__all__ = ["Block", "Budget", "Direction", "Instance", "RankOne", "TieBlock"]
