"""The report of a finished run as one page, from its run folder alone.

``content`` reads the record and makes tables and sentences of it, ``figures`` turns figures into
text, and ``page`` writes one HTML file that needs no network, and LaTeX tables beside it.
"""
