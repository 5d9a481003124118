"""How the documentation is built.

From the top of the repository, with the extra ``docs`` installed:
``sphinx-build -W --keep-going -b html docs docs/_build``. Warnings are errors; tutorials are run.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]
# Several tutorials run side by side: each with one thread, and the library of this checkout.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(HERE / "_ext"), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)

from api_pages import write_api  # noqa: E402

import pyro_relevance  # noqa: E402

write_api(HERE / "api")

project = "pyro_relevance"
author = "the authors of pyro_relevance"
copyright = author  # noqa: A001
release = version = pyro_relevance.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "myst_parser",
    "mathml",  # this one and the next: docs/_ext
    "sources",
]
exclude_patterns = ["_build", "**/GALLERY_HEADER.rst", "auto/**/*.ipynb", "auto/**/*.py"]
# An object that is public under two names, such as Mask, is one target and not two.
suppress_warnings = ["ref.python", "config.cache"]

# Pages
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# API
default_role = "py:obj"  # a name in single backticks, as the docstrings have them
autosummary_generate = True
autosummary_imported_members = False
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    # Methods that scikit-learn adds to its estimators.
    "exclude-members": "set_fit_request, set_predict_request, set_score_request",
}
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
viewcode_line_numbers = True

# Tutorials
sphinx_gallery_conf = {
    "examples_dirs": ["tutorials", "parts", "figures"],
    "gallery_dirs": ["auto/tutorials", "auto/parts", "auto/figures"],
    "filename_pattern": r"/plot_",
    "image_scrapers": ("sources.figures",),
    "capture_repr": ("_repr_html_", "__repr__"),
    "parallel": os.cpu_count() or 1,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 0,
    "within_subsection_order": "FileNameSortKey",
    "copyfile_regex": r"_\w+\.py",
    "abort_on_example_error": False,
    "only_warn_on_example_error": True,  # a warning is an error; others still run
    "reset_modules": (),
    "nested_sections": False,
}

# Look
html_theme = "pydata_sphinx_theme"
html_title = "pyro_relevance"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
    "show_prev_next": True,
}
html_sidebars = {"*": []}  # pages of the top have no section
html_math_renderer = "mathml"
