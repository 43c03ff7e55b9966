"""What quantizes a model and runs it: the protocols in `base`, and one folder per runtime.

May import: `base`: spaces and descriptions of inputs. A runtime: `costs` and what is below it,
and no sampler. `default`: the runtime that is used where none is given.
"""
