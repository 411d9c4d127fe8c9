"""Makes a question that leans on the one before it stand alone: what that was about is put behind it, in its own words.
By rule, so that what is looked for can be shown and understood; knows no model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

from terakoya.rag.core.asked import without_siblings
from terakoya.rag.retrieval.analysis import key_words

MAX_CARRIED = 8
"""Words carried over."""
_SEPARATOR = " — "
_FEW_WORDS = 1
"""With no more words of its own a question says too little to be looked for."""
_LEANS = re.compile(
    r"^(?:and|but|so|then|also|what about|how about|what if|why|why not|when|where|how|who|really)\b[^a-z]*$"
    r"|^(?:and|but|so|then|also|what about|how about|what if)\b"
    r"|\b(?:it|its|they|them|their|this|that|these|those|he|she|his|her|there|then|the same|one|ones)\b"
    r"|^(?:では|じゃ|それ|その|そこ|そう|これ|この|ここ|あと|また|ほか|他に|ちなみに|なぜ|どうして|いつ|どこ|誰|だれ)"
    r"|それ|その|そこ|これ|この|同じ|前の|さっき|上記|の場合は[?？]?$|(?:は|も|なら)[?？]$"
)
_LONGEST_LEANING = 80
"""Characters: a longer question has words enough."""


def leans(question: str) -> bool:
    """Whether a question needs what was said before it: it points back, or says almost nothing by itself."""
    plain = normalize("NFKC", question).strip().lower()
    if len(key_words(question)) <= _FEW_WORDS:
        return True
    return len(plain) <= _LONGEST_LEANING and _LEANS.search(plain) is not None


def standalone(question: str, earlier: Sequence[str]) -> str:
    """Return the question as it is looked for. ``earlier``: the questions before it as they were looked for, oldest
    first; the last one says what the talk is about. Blocks for a millisecond or two.

    Left out of what is carried over: what the question has itself, and siblings of what it names (the MC-240 where it
    asks of the MC-310).
    """
    if not earlier or not leans(question):
        return question
    own = {word.casefold() for word in key_words(question)}
    carried = [
        word
        for word in key_words(without_siblings(question, earlier[-1]).replace(_SEPARATOR.strip(), " "))
        if word.casefold() not in own
    ][:MAX_CARRIED]
    return f"{question.strip()}{_SEPARATOR}{' '.join(carried)}" if carried else question
