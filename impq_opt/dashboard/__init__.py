"""The dashboard: a local page over the runs, problems and allocations of a folder, which solves as its slider moves."""

from impq_opt.dashboard.folder import Folder, Item
from impq_opt.dashboard.server import Server

__all__ = ["Folder", "Item", "Server"]
