"""How results show themselves: one line for a console, a small table for a notebook.

No representation holds an array. It lies in the lowest room because results of all rooms use it.
"""
