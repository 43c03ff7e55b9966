"""Quantization-aware training: a configuration as a module, and what was trained as a plan.

May import: `backends.torch.candidates` and what is below it.
"""
