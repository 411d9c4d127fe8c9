"""Continued pre-training: every token of running text is predicted from those before it, the loss as in supervised
learning.
"""

from __future__ import annotations

from typing import ClassVar

from terakoya.training.objectives.encodings import DOCUMENTS, Encoding
from terakoya.training.objectives.supervised import SupervisedObjective


class TextObjective(SupervisedObjective):
    encoding: ClassVar[Encoding] = DOCUMENTS
