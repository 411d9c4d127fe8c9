from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from terakoya.exceptions import ModelLoadError, Unavailable
from terakoya.models.side_by_side import Start, side_by_side

Event = dict[str, Any]


class Machine:
    """Has room for so many answers at a time; counts those that were closed."""

    def __init__(self, room: int) -> None:
        self.room, self.writing, self.closed, self.most = room, 0, 0, 0

    def answer(self, *, pieces: int = 3, fails: Exception | None = None) -> Start:
        async def write() -> AsyncGenerator[Event, None]:
            if self.writing >= self.room:
                raise Unavailable("no room beside what is in use")
            self.writing += 1
            self.most = max(self.most, self.writing)
            try:
                for number in range(pieces):
                    await asyncio.sleep(0)
                    yield {"delta": str(number)}
                if fails is not None:
                    raise fails
                yield {"finished": True}
            finally:
                self.writing -= 1
                self.closed += 1

        return write


async def read(answers: dict[str, Start]) -> list[Event]:
    return [event async for event in side_by_side(answers, "model")]


async def test_answers_are_written_at_once_and_told_apart() -> None:
    machine = Machine(room=2)
    got = await read({"a": machine.answer(), "b": machine.answer()})
    assert machine.most == 2
    assert [event["model"] for event in got[:4]] == ["a", "b", "a", "b"]
    for name in "ab":
        assert [event for event in got if event["model"] == name][-1] == {"model": name, "finished": True}


async def test_without_room_beside_each_other_they_answer_one_after_the_other() -> None:
    machine = Machine(room=1)
    got = await asyncio.wait_for(read({name: machine.answer() for name in "abcd"}), 5)
    assert sorted(event["model"] for event in got if event.get("finished")) == list("abcd")
    assert not [event for event in got if "error" in event]
    assert machine.most == 1


async def test_what_finds_no_room_even_alone_is_an_error() -> None:
    got = await asyncio.wait_for(read({name: Machine(room=0).answer() for name in "abc"}), 5)
    assert [event["code"] for event in got] == ["unavailable"] * 3


async def test_an_answer_that_fails_leaves_the_others_alone() -> None:
    machine = Machine(room=2)
    got = await read({"bad": machine.answer(pieces=1, fails=ModelLoadError("it broke")), "good": machine.answer()})
    assert {"model": "bad", "error": "it broke", "code": "model_load_error"} in got
    assert {"model": "good", "finished": True} in got


async def test_one_that_was_begun_is_not_begun_again() -> None:
    machine = Machine(room=2)
    got = await read({"bad": machine.answer(pieces=1, fails=Unavailable("died")), "good": machine.answer(pieces=9)})
    assert [event for event in got if event["model"] == "bad"] == [
        {"model": "bad", "delta": "0"},
        {"model": "bad", "error": "died", "code": "unavailable"},
    ]


async def test_a_reader_who_leaves_closes_every_answer() -> None:
    machine = Machine(room=2)
    events = side_by_side({"a": machine.answer(pieces=10**9), "b": machine.answer(pieces=10**9)}, "model")
    async for _ in events:
        break
    await asyncio.sleep(0.01)
    await events.aclose()
    assert (machine.writing, machine.closed) == (0, 2)


async def test_a_reader_who_stops_reading_stops_the_writers() -> None:
    machine = Machine(room=1)
    events = side_by_side({"a": machine.answer(pieces=10**9)}, "model")
    first = await anext(events)
    await asyncio.sleep(0.05)
    assert int((await anext(events))["delta"]) == int(first["delta"]) + 1
    await events.aclose()


async def test_a_defect_is_not_swallowed() -> None:
    machine = Machine(room=1)
    with pytest.raises(ZeroDivisionError):
        await read({"a": machine.answer(fails=ZeroDivisionError())})
