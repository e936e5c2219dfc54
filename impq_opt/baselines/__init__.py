"""Tables of methods: each trained from one float network on equal terms, beside what was published of it.

::

    rows = recipe.rows()
    runs = run_methods(network, splits, rows, range(2), "runs")
    place = partial(run_folder, "runs")
    for row in table(network, runs, rows, place, test=splits.test, validation=splits.validation):
        print(row.name, row.weight_bits, row.accuracy)
"""

from impq_opt.baselines.runs import run_folder, run_methods
from impq_opt.baselines.table import Row, table

__all__ = ["Row", "run_folder", "run_methods", "table"]
