"""From a CSV file of a user to tensors: ``read_table``, ``encode``, ``Encoder``, ``read_rows``.

Stands in front of ``find_edges``: an encoder names the gate of every original column
(``input_labels``) and says which tensor columns share it (``input_index``). Nothing is repaired in
silence: each treatment is a sentence in ``notes``, everything else is a ``DataError`` that says
what was expected, what came, where, and what to do.
"""

from __future__ import annotations

from pyro_relevance.data.splits import split_rows
from pyro_relevance.data.tables.columns import CategoryColumn, NumericColumn
from pyro_relevance.data.tables.encoder import Encoder, encode
from pyro_relevance.data.tables.rows import read_rows
from pyro_relevance.data.tables.table import Table, read_table

__all__ = [
    "CategoryColumn",
    "Encoder",
    "NumericColumn",
    "Table",
    "encode",
    "read_rows",
    "read_table",
    "split_rows",
]
