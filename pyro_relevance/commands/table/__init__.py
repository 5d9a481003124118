"""The main job: from a CSV file to a posterior over inputs and weights, a small network, a report.

``recipe`` fits one posterior, ``run`` chooses settings, decides, prunes and tests, ``report`` says
it in words, ``files`` writes the run folder.
"""
