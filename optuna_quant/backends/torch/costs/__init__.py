"""What the configurations of a program cost, as far as it is counted: bytes and operations.

May import: `backends.torch.sensitivity` and what is below it.
"""
