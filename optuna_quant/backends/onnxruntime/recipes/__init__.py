"""Recipes: methods for the whole model, each a parameter of the study with a few values.

Each recipe is an object of a class of ``recipe.py``, and stands in the table ``RECIPES`` of
``table.py``. Its values are labels (``"off"``, ``"on"``, ``"alpha=0.5"``) that say all about the
recipe, so that no two of them are one model and the label alone builds it again: what a user sets
beside the value (``smooth_quant_args``) is written into the label. In the table recipes of one
kind stand in the order in which they are applied. The kinds, by when they take part in building a
candidate:

1. ``ConfigRecipe``: configuration to configuration, before anything else.
2. ``GraphRecipe``: FP32 graph to FP32 graph with the same function, before anything is quantized.
   What they give is a *variant* (``variants.py``), with its own builder and calibration
   statistics, made when the first configuration needs it and kept.
3. ``WriterRecipe``: changes how the builder writes a candidate.
4. ``SessionRecipe``: changes the options of a candidate's sessions.

``request.py`` reads what the user asks for (``recipes=``) into the values of each recipe;
``offered.py`` leaves out what would change nothing in this model. What is left is
``Capability.recipes``; a recipe with one value is fixed and has no parameter. A configuration that
does not name a recipe has its default, and ``quantize`` takes any value that a recipe knows,
whether it is offered or not, so that an answer can be built by any backend of the model.

To add one: a class in a file of this folder (a folder, if it is large), an instance in the table,
a test in ``tests/backends/onnxruntime/recipes/``, a section in ``docs/recipes.md``.

May import: `backends.onnxruntime.candidate_ranges` and what is below it.
"""
