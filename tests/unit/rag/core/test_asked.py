from __future__ import annotations

import pytest

from terakoya.rag.core.asked import asked_units, names_another


@pytest.mark.parametrize(
    ("question", "units"),
    [
        ("夏季休暇は何日ありますか。", {"day", "workday"}),
        ("入社から何か月で与えられますか", {"month"}),
        ("送料はいくらですか", {"yen", "dollar", "euro"}),
        ("何時間まで使えますか", {"hour"}),
        ("何時に開きますか", {"clock"}),
        ("試乗会はいつですか", {"month_name", "day", "year", "clock"}),
        ("How many working days does it take?", {"workday"}),
        ("How many people were there?", {"person"}),
        ("What does a badge cost?", {"yen", "dollar", "euro"}),
        ("At what temperature is it stored?", {"degree"}),
        ("Why did it fail?", set()),
        ("いつも使う道具は", set()),
    ],
)
def test_a_question_asks_for_units(question: str, units: set[str]) -> None:
    assert asked_units(question) == units


def test_how_long_is_any_length_of_time() -> None:
    assert {"minute", "day", "year"} <= asked_units("How long is the warranty?")


@pytest.mark.parametrize(
    ("question", "text", "another"),
    [
        ("Weight of the MC-240?", "The MC-310 weighs 50 kg.", True),
        ("Weight of the MC-240?", "The MC-240 is lighter than the MC-310.", False),
        ("Weight of the ＭＣ－２４０?", "mc240: 38 kg", False),
        ("Weight of the MC-240?", "It takes pads BP-7.", False),
        ("Weight of the bicycle?", "The MC-310 weighs 50 kg.", False),
    ],
)
def test_a_sibling_of_what_the_question_names_is_another(question: str, text: str, another: bool) -> None:
    assert names_another(question, text) is another
