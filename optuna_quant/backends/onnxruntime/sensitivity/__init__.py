"""What each op's quantization does to the outputs: MSE, gradients, Hessian.

May import: `backends.onnxruntime.recipes` and what is below it.
"""
