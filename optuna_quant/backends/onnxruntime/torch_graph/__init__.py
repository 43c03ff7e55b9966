"""The ONNX graph in torch, for gradients. Needs the extra torch."""
