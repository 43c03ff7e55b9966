"""What the runtime really runs, read from its optimized graph.

May import: `backends.onnxruntime.torch_graph` and what is below it.
"""
