"""What the configurations of an ONNX model cost on this machine."""
