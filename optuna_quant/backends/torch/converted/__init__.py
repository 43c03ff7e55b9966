"""The program that is deployed: written from a plan, lowered to kernels, saved and loaded.

May import: `backends.torch.qat` and what is below it.
"""
