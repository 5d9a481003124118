"""Experiments: ``run_*.py`` compute and write records, ``fig_*.py`` and ``table_*.py`` only read them."""
