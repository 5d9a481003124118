"""Data and the ordinary networks of the experiments; nothing here knows about edges or gates.

``tables`` reads a user's CSV file, ``datasets`` and ``images`` the sets of the experiments,
``augmentation`` changes images at random, ``networks`` are plain torch modules. Import the part
that is needed: pandas and torchvision are not loaded for the others.
"""
