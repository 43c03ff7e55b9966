"""What quantizes a model and runs it: the protocol in `base`, and one folder per runtime.

May import: `base`: spaces alone. A runtime: `costs` and what is below it, and no sampler.
"""
