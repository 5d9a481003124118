"""Experiments: ``run_*.py`` write records, ``fig_*.py`` and ``table_*.py`` only read them."""
