"""The bundled sample: counts, kinds, splits and variety of samples/inbox.jsonl, read as a user's file would be."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from importlib import resources

import pytest

KINDS = {
    "account_login", "cancel_order", "change_address", "damaged_parcel", "delete_account", "discount_code",
    "expense_claim", "gift_card", "invoice_copy", "it_problem", "job_application", "meeting_request",
    "newsletter_stop", "opening_hours", "order_status", "payment_failed", "press_inquiry", "refund_missing",
    "repair_booking", "repair_status", "return_item", "sick_leave", "sizing_help", "stock_question",
    "supplier_offer", "warranty_claim", "wrong_item",
}  # fmt: skip
TRAIN_ROWS_PER_KIND = 37
HELDOUT_ROWS_PER_KIND = 12
NEAR_DUPLICATE_JACCARD = 0.75
MOST_ROWS_WITH_ONE_OPENING = 3


def _words(prompt: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", prompt.lower())


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    text = (resources.files("terakoya") / "samples" / "inbox.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_every_row_has_exactly_a_prompt_a_known_kind_and_a_split(rows: list[dict[str, str]]) -> None:
    for row in rows:
        assert set(row) == {"prompt", "completion", "split"}, row
        assert row["prompt"] == row["prompt"].strip(), row
        assert 3 <= len(row["prompt"].split()) <= 35, row
        assert row["completion"] in KINDS, row
        assert row["split"] in {"train", "heldout"}, row


def test_every_kind_has_37_training_and_12_heldout_rows(rows: list[dict[str, str]]) -> None:
    expected = {(kind, "train"): TRAIN_ROWS_PER_KIND for kind in KINDS}
    expected |= {(kind, "heldout"): HELDOUT_ROWS_PER_KIND for kind in KINDS}

    assert Counter((row["completion"], row["split"]) for row in rows) == expected


def test_no_two_rows_are_the_same_or_nearly_so_within_or_across_splits(rows: list[dict[str, str]]) -> None:
    word_sets = [frozenset(_words(row["prompt"])) for row in rows]
    rows_with = Counter(word for words in word_sets for word in words)
    holders: dict[str, list[int]] = defaultdict(list)
    near = []
    for i, words in enumerate(word_sets):
        # Two sets above the threshold share more than 0.75 of either's words, so with the rarest first at least
        # one shared word is in the first quarter (and one) of both: only those are worth comparing.
        rarest = sorted(words, key=lambda word: (rows_with[word], word))
        first = rarest[: int((1 - NEAR_DUPLICATE_JACCARD) * len(words)) + 1]
        for j in {j for word in first for j in holders[word]}:
            if len(words & word_sets[j]) > NEAR_DUPLICATE_JACCARD * len(words | word_sets[j]):
                near.append((rows[j]["prompt"], rows[i]["prompt"]))
        for word in first:
            holders[word].append(i)

    assert near == []


def test_heldout_prompts_are_not_among_the_training_prompts(rows: list[dict[str, str]]) -> None:
    prompts: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        prompts[row["split"]].add(" ".join(_words(row["prompt"])))

    assert prompts["train"].isdisjoint(prompts["heldout"])
    assert sum(map(len, prompts.values())) == len(rows)


def test_no_opening_of_three_words_is_a_habit_of_its_kind(rows: list[dict[str, str]]) -> None:
    openings = Counter((row["completion"], tuple(_words(row["prompt"])[:3])) for row in rows)

    assert [opening for opening, count in openings.items() if count > MOST_ROWS_WITH_ONE_OPENING] == []


def test_the_name_of_a_kind_is_in_fewer_than_half_of_its_prompts(rows: list[dict[str, str]]) -> None:
    named = Counter(
        row["completion"] for row in rows if row["completion"].replace("_", " ") in " ".join(_words(row["prompt"]))
    )

    assert {kind: count for kind, count in named.items() if count * 2 >= 49} == {}


def test_no_prompt_holds_an_address_of_the_internet_or_a_telephone_number(rows: list[dict[str, str]]) -> None:
    assert [row["prompt"] for row in rows if re.search(r"@|https?:|www\.|\d[\d ]{6,}", row["prompt"])] == []
