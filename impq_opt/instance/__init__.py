"""A question as a strategy sees it: rows of whole numbers, float64 damages, pins folded in, ties merged."""

from __future__ import annotations

from impq_opt.instance.instance import Block, Direction, Instance, RankOne, Row, TieBlock

__all__ = ["Block", "Direction", "Instance", "RankOne", "Row", "TieBlock"]
