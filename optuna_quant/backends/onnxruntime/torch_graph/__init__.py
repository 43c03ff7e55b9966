"""The ONNX graph in torch, for gradients. Needs the extra torch.

May import: `backends.onnxruntime.model` and what is below it.
"""
