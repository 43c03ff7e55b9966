"""The ONNX graph in torch, for gradients. Needs the extra torch.

May import: `backends.onnxruntime.torch_export` and what is below it.
"""
