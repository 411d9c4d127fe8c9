"""What a question's answer consists of while it comes: passages, text, citations, the verdict, and the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from terakoya.domain.documents import Answer, Citation, Hit, Verdict


@dataclass(frozen=True, slots=True)
class HitFound:
    hit: Hit
    type: Literal["hit"] = "hit"


@dataclass(frozen=True, slots=True)
class TokenWritten:
    """A piece of the answer. A model's text is a draft, without markers, until ``Done`` brings what was checked."""

    text: str
    type: Literal["token"] = "token"


@dataclass(frozen=True, slots=True)
class CitationChecked:
    citation: Citation
    type: Literal["citation"] = "citation"


@dataclass(frozen=True, slots=True)
class VerdictReached:
    verdict: Verdict
    type: Literal["verdict"] = "verdict"


@dataclass(frozen=True, slots=True)
class Done:
    answer: Answer
    type: Literal["done"] = "done"


AnswerEvent: TypeAlias = HitFound | TokenWritten | CitationChecked | VerdictReached | Done
