"""Objectives: what a step's loss is, and which rows of tokens an example becomes for it."""
