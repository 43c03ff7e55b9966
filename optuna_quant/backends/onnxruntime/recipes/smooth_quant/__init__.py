"""SmoothQuant: large channels of activations made smaller, and their weights larger.

May import: as `backends.onnxruntime.recipes`.
"""
