"""Data sets that are shipped with the library (see README.md beside this file)."""
