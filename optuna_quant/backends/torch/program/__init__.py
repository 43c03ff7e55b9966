"""An exported program as models are run and described: its inputs, its calls, its content.

May import: `backends.torch_program` and what is below it.
"""
