"""Llama-like decoders computed by hand-written forward and backward passes: fewer and larger products, no casts, and
attention made for many short rows. For CPUs, where the overhead of many small operations is most of a step.
"""
