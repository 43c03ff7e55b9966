"""What devices run: profiles, and the options and forms that follow from them.

May import: `backends.onnxruntime.weight_only` and what is below it.
"""
