"""Learning the next task without losing the last: importance of weights, the penalty on moving them, replay of
earlier examples, chains of tasks and the figures that say how it went. Knows modules, logits and files; not requests,
datasets or the web. ``docs/continual-learning.md`` has the mathematics.
"""
