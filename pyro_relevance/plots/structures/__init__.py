"""Figures of what is relevant together: correlations, stability, pixels, filters, architectures.

Each takes the ArviZ object of either generation.
"""
