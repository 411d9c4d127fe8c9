"""How well citations are checked: planted faults that must be caught, and true citations that must not be rejected.

    TERAKOYA_BENCH_DATA=... python benchmarks/citations.py

Sentences with what was changed in them stand in for what a model writes: no model is asked. JSQuAD (Japanese): the
sentence that holds the answer of a question. SciFact (English): sentences of the abstracts. Of each sentence comes

    true       the sentence as it is; the part of it up to a comma, with the answer in it where there is one;
               its first and last words exchanged in order (English: after a comma)
    number     one number in it is another one
    unit       the word after a number is another unit
    invented   the citation names a sentence that was not given
    swapped    the citation names a sentence of another passage

Units are exchanged by the list below, which knows nothing of the checker's own. Writes
``benchmarks/results/citations.json``.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machine import describe_machine, save

from terakoya.domain.documents import Hit, Passage
from terakoya.evaluation.statistics import wilson_interval
from terakoya.rag.core.citations import check_answer
from terakoya.rag.core.evidence import EvidenceSentence, evidence_sentences

SENTENCES = 1500
"""Of each corpus at most."""
UNITS = {
    "ja": (
        *("年", "月", "日", "時間", "分", "秒", "世紀", "年代", "歳", "人", "名", "円", "ドル", "回", "度", "位", "番"),
        *(
            "個",
            "本",
            "台",
            "隻",
            "校",
            "種",
            "つ",
            "km",
            "m",
            "cm",
            "メートル",
            "キロ",
            "kg",
            "%",
            "パーセント",
            "倍",
            "票",
        ),
    ),
    "en": (
        *("days", "weeks", "months", "years", "hours", "minutes", "patients", "participants", "women", "men", "cases"),
        *("genes", "kg", "mg", "g", "ml", "mm", "cm", "km", "%", "percent", "fold", "studies", "trials", "mice"),
    ),
}
NUMBER_WORDS = {
    str(number): word
    for number, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), start=1)
}
_NUMBER = re.compile(r"(?<![\w.,-])\d+(?:\.\d+)?(?![\w.]*\d)(?!-)")
_AFTER = {
    "ja": re.compile(
        r"(\d+(?:\.\d+)?)\s?(" + "|".join(sorted(map(re.escape, UNITS["ja"]), key=len, reverse=True)) + ")"
    ),
    "en": re.compile(
        r"(?<![\w.,-])(\d+(?:\.\d+)?)( ?)("
        + "|".join(sorted(map(re.escape, UNITS["en"]), key=len, reverse=True))
        + r")(?!\w)"
    ),
}


@dataclass(frozen=True)
class Source:
    language: str
    passage: int
    sentence: EvidenceSentence
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    kind: str
    written: str
    cited: EvidenceSentence | None
    """None for a number that was never given."""
    answer_sentence: str = ""


def rows(name: str) -> list[dict[str, Any]]:
    folder = os.environ.get("TERAKOYA_BENCH_DATA")
    path = Path(folder or "") / name
    if not folder or not path.is_file():
        sys.exit(f"{name} is not there: set TERAKOYA_BENCH_DATA to the folder that has it")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def sentences_of(title: str, text: str, number: int) -> tuple[EvidenceSentence, ...]:
    passage = Passage(f"p{number}", f"d{number}", 1, 0, 0, len(text), text)
    return evidence_sentences([Hit(passage, title, 1.0)])


def jsquad() -> list[Source]:
    passages = {row["id"]: (place, row) for place, row in enumerate(rows("jsquad/passages.jsonl"))}
    found: dict[tuple[int, int], Source] = {}
    for question in rows("jsquad/questions.jsonl"):
        place, row = passages[question["passage_id"]]
        text = row["text"].removeprefix(row["title"]).strip()
        answers = tuple(answer if isinstance(answer, str) else answer["text"] for answer in question["answers"])
        for sentence in sentences_of(row["title"], text, place):
            if any(answer in sentence.text for answer in answers):
                found.setdefault((place, sentence.start), Source("ja", place, sentence, answers))
    return chosen(list(found.values()))


def scifact() -> list[Source]:
    found = [
        Source("en", place, sentence)
        for place, row in enumerate(rows("scifact/corpus.jsonl")[:2000])
        for sentence in sentences_of(row["title"], row["text"], place)
        if 40 <= len(sentence.text) <= 400
    ]
    return chosen(found)


def chosen(found: Sequence[Source]) -> list[Source]:
    return random.Random(0).sample(list(found), min(SENTENCES, len(found)))


def cases_of(source: Source, others: Sequence[Source], chance: random.Random) -> Iterator[Case]:
    sentence, text = source.sentence, source.sentence.text
    yield Case("true_whole", text, sentence)
    if (part := _part(source)) is not None:
        yield Case("true_part", part, sentence)
    if (changed := _other_number(text, f"{sentence.context}\n{text}", chance)) is not None:
        yield Case("number", changed, sentence)
    if (changed := _other_unit(source.language, text, chance)) is not None:
        yield Case("unit", changed, sentence)
    yield Case("invented", text, None)
    other = next(one for one in iter(lambda: chance.choice(others), None) if one.passage != source.passage)
    yield Case("swapped", text, other.sentence)


def _part(source: Source) -> str | None:
    """The sentence up to a comma or from one on, whichever holds the answer; at least a third of it."""
    text = source.sentence.text
    comma = "、" if source.language == "ja" else ", "
    pieces = [text[: match.start()] for match in re.finditer(comma, text)]
    pieces += [text[match.end() :] for match in re.finditer(comma, text)]
    held = [
        piece.strip()
        for piece in pieces
        if len(piece) >= len(text) / 3 and (not source.answers or any(answer in piece for answer in source.answers))
    ]
    return min(held, key=len) if held else None


def _other_number(text: str, source: str, chance: random.Random) -> str | None:
    """One of the numbers becomes one that the source has nowhere, in digits or as a word."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    match = chance.choice(found)
    for _ in range(100):
        digits = [*match[0]]
        place = chance.choice([place for place, digit in enumerate(digits) if digit.isdigit()])
        digits[place] = chance.choice([digit for digit in "123456789" if digit != digits[place]])
        number = "".join(digits)
        if number not in source and NUMBER_WORDS.get(number, number) not in source.lower():
            return text[: match.start()] + number + text[match.end() :]
    return None


def _other_unit(language: str, text: str, chance: random.Random) -> str | None:
    found = list(_AFTER[language].finditer(text))
    if not found:
        return None
    match = chance.choice(found)
    own = match[match.lastindex or 0]
    unit = chance.choice([unit for unit in UNITS[language] if unit != own and not _same(unit, own)])
    start, end = match.span(match.lastindex or 0)
    return text[:start] + unit + text[end:]


def _same(one: str, other: str) -> bool:
    """Two spellings of one unit, or of what may be meant by it."""
    alike = ({"人", "名"}, {"%", "パーセント"}, {"m", "メートル"}, {"%", "percent"}, {"km", "キロ", "kg"}, {"番", "位"})
    return any({one, other} <= group for group in alike)


def is_verified(case: Case) -> bool:
    numbered = {} if case.cited is None else {1: case.cited}
    checked = check_answer(f"{case.written} [1]", numbered)
    return any(citation.verified for citation in checked.citations) and checked.unsupported_sentences == 0


def measure(sources: Sequence[Source]) -> dict[str, Any]:
    chance = random.Random(1)
    verified: dict[str, list[bool]] = {}
    missed: dict[str, list[str]] = {}
    for source in sources:
        for case in cases_of(source, sources, chance):
            result = is_verified(case)
            verified.setdefault(case.kind, []).append(result)
            if result != case.kind.startswith("true"):
                missed.setdefault(case.kind, []).append(case.written)
    for kind, texts in missed.items():
        print(kind, *texts[:8], sep="\n   ", file=sys.stderr)
    return {kind: share(kind, results) for kind, results in verified.items()}


def share(kind: str, verified: Sequence[bool]) -> dict[str, Any]:
    """Rejected true ones, caught faults, each with its interval."""
    rejected = sum(not one for one in verified)
    interval = wilson_interval(rejected, len(verified))
    name = "rejected" if kind.startswith("true") else "caught"
    rounded = {key: None if value is None else round(value, 4) for key, value in interval.to_json().items()}
    return {"cases": len(verified), name: rounded, "not_as_it_should_be": min(rejected, len(verified) - rejected)}


def main() -> None:
    machine = describe_machine()
    figures = {"jsquad": measure(jsquad()), "scifact": measure(scifact())}
    print(json.dumps(figures, indent=1), file=sys.stderr)
    save("citations", figures, machine)


if __name__ == "__main__":
    main()
