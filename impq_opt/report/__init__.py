"""The report: figures and tables about an allocation or a run, as one self-contained page or as pictures."""

from impq_opt.report.content import Measured, Report, Strategy
from impq_opt.report.page import render_page
from impq_opt.report.pictures import write_pictures

__all__ = ["Measured", "Report", "Strategy", "render_page", "write_pictures"]
