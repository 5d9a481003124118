"""Figures of predictions: against what was observed, their calibration, and along one input.

Each takes the ArviZ object, or a data set that ``report`` made of a posterior.
"""
