"""NAS-Bench-201 for the experiments: its table, the small proxy, and the searches by it.

`table` reads what the benchmark knows of each cell, `repeated` repeats searches that query it,
`proxy` is the small network by which searches on images compare cells, and `searches` holds these.
"""
