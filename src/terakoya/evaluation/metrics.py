"""When an answer counts as the reference, and how near it comes where it does not. Knows nothing of how answers are
made.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_LONGEST_NGRAM = 6
_BETA_SQUARED = 4
_UNSPACED = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3005\u3007\u0e00-\u0e7f"
"""Kana, kanji, Thai: scripts written without spaces, of which each character is a token."""
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def normalise_answer(text: str) -> str:
    """Return the text as it is compared: NFKC (full-width letters are letters), runs of white space as one space,
    none outside. Case and punctuation count.
    """
    return _spaced(unicodedata.normalize("NFKC", text))


def is_exact_match(answer: str, reference: str) -> bool:
    return normalise_answer(answer) == normalise_answer(reference)


def may_become(beginning: str, reference: str) -> bool:
    """Whether an answer that begins like this can still match. Errs towards yes where what follows may join the
    last character: an accent, a voicing mark, the rest of a character's bytes.
    """
    said = unicodedata.normalize("NFKD", beginning.rstrip("\N{REPLACEMENT CHARACTER}"))
    while said and unicodedata.combining(said[-1]):
        said = said[:-1]
    return _spaced(unicodedata.normalize("NFKD", reference)).startswith(_spaced(said))


def chrf(answer: str, reference: str) -> float:
    """Return chrF2 of the answer, 0 to 1: overlap of character n-grams up to six, recall counted twice; spaces do not
    count. Orders that one of the texts is too short for are left out.

    Source: Popovic 2015, "chrF: character n-gram F-score", eq. 1, with beta 2.
    """
    said, wanted = ("".join(normalise_answer(text).split()) for text in (answer, reference))
    precisions, recalls = [], []
    for order in range(1, _LONGEST_NGRAM + 1):
        ours, theirs = _ngrams(said, order), _ngrams(wanted, order)
        if ours and theirs:
            common = (ours & theirs).total()
            precisions.append(common / ours.total())
            recalls.append(common / theirs.total())
    if not precisions:
        return float(said == wanted)
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    if precision + recall == 0:
        return 0.0
    return (1 + _BETA_SQUARED) * precision * recall / (_BETA_SQUARED * precision + recall)


def token_f1(answer: str, reference: str) -> float:
    """Return the harmonic mean of precision and recall of tokens, 0 to 1, whatever their order, case or punctuation.
    A token is a word, or a character of a script without spaces.

    Source: Rajpurkar et al. 2016 (SQuAD), without its removal of English articles.
    """
    ours, theirs = Counter(_tokens(answer)), Counter(_tokens(reference))
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * (ours & theirs).total() / (ours.total() + theirs.total())


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))


def _tokens(text: str) -> Sequence[str]:
    return _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())


def _spaced(text: str) -> str:
    return " ".join(text.split())
