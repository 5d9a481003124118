"""The library and its rivals on the same data, with the same recipe and the same time.

Comparison --run_all--> files of runs --finished--> results --comparison_record--> record
record --text_table, latex_table, plots.pareto--> a table and a figure for a paper
"""

from __future__ import annotations

from pyro_relevance.comparison.methods import METHODS, Method, methods_of
from pyro_relevance.comparison.runs import Comparison, failures, finished, run_all, run_one
from pyro_relevance.comparison.tables import comparison_record, latex_table, text_table
from pyro_relevance.comparison.tasks import TASKS, Task, make_task

__all__ = [
    "METHODS",
    "TASKS",
    "Comparison",
    "Method",
    "Task",
    "comparison_record",
    "failures",
    "finished",
    "latex_table",
    "make_task",
    "methods_of",
    "run_all",
    "run_one",
    "text_table",
]
