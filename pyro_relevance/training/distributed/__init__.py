"""One fit in several processes, each with a share of the examples."""
