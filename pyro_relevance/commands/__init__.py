"""The commands ``table``, ``search`` and ``compare``: thin, over functions that Python users call.

``main`` reads arguments, ``table`` and ``search`` are the jobs with their run folders. Nothing is
imported before a job begins, so that ``--help`` is quick.
"""
