"""The exported graph with a switch for each op: which ops there are, and how they are switched.

May import: `backends.torch.program` and what is below it.
"""
