"""What each op's quantization does to the outputs: errors, gradients, curvature.

May import: `backends.torch.converted` and what is below it.
"""
