"""Settings of Sphinx."""

from __future__ import annotations

from importlib.metadata import version as installed_version

from docutils.nodes import TextElement
from docutils.nodes import reference
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode


project = "optuna_quant"
author = "the optuna_quant authors"
project_copyright = "the optuna_quant authors, MIT licence"
version = release = installed_version("optuna_quant")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_templates"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Annotations have short names, and a protocol may have the name of the class that implements it
# (ExecutedOp).
suppress_warnings = ["ref.python"]

autodoc_member_order = "bysource"
# Nothing of it is documented, and to install it takes longer than to build the pages. It is
# replaced where it is installed, too, so that the pages are the same everywhere. A class that
# derives from one of its own has its signature in api/: autodoc finds that of the replacement.
autodoc_mock_imports = ["torch"]
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

templates_path = ["_templates"]
html_theme = "furo"
html_title = "optuna_quant"
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/versions.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_copy_source = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Register what the settings define."""
    app.connect("missing-reference", link_of_short_name)


def link_of_short_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: TextElement
) -> reference | None:
    """Link a type that an annotation names without its module, if only one is documented."""
    if node.get("refdomain") != "py" or node.get("reftype") != "class":
        return None
    ending = f".{node['reftarget']}"
    found = [
        (name, entry)
        for name, entry in env.domains.python_domain.objects.items()
        if name.endswith(ending) and entry.objtype in ("class", "type")
    ]
    if len(found) != 1:
        return None
    ((name, entry),) = found
    return make_refnode(
        app.builder,
        node["refdoc"],
        entry.docname,
        entry.node_id,
        shown,
        f"{name} ({entry.objtype})",
    )
