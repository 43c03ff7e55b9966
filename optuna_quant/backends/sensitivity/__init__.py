"""Parts of sensitivities that know no runtime: errors, gradients and curvature of outputs.

Torch is an extra: modules that import it say so, and are imported where they are used.

May import: `backends.weight_algorithms` and what is below it.
"""
