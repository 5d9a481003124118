"""``python -m pyro_relevance`` is the command ``pyro-relevance``."""

import sys

from pyro_relevance.commands.main import main

sys.exit(main())
