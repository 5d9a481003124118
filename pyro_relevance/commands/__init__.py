"""The commands ``table``, ``search`` and ``compare``: thin, over functions that Python users call.

``main`` reads arguments. ``table`` and ``search`` are the two jobs, each with its run folder;
``report`` and ``predict`` read that of ``table``. ``scoring`` measures networks and baselines.
Imports wait until a job begins, so that ``--help`` is quick.
"""
