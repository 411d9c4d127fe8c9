from __future__ import annotations

from terakoya.domain.tasks import TaskKind
from terakoya.tasks.slots import Place, Slots

TRAINING, PULL = TaskKind.TRAINING, TaskKind.PULL


def test_each_device_takes_so_many_and_the_emptiest_is_next() -> None:
    slots = Slots({TRAINING: 2}, devices={TRAINING: ("cuda:0", "cuda:1")})
    devices = []
    for number in range(4):
        place = slots.free(TRAINING)
        assert place is not None
        slots.take(str(number), place)
        devices.append(place.device)
    assert devices == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert slots.free(TRAINING) is None
    slots.give_back("1")
    assert slots.free(TRAINING) == Place(TRAINING, "cuda:1")
    assert slots.free(PULL) == Place(PULL, None)


def test_a_place_on_a_device_that_is_no_longer_set_takes_none_of_the_others() -> None:
    slots = Slots({TRAINING: 1}, devices={TRAINING: ("cpu",)})
    slots.take("adopted", Place(TRAINING, "cuda:3"))
    assert slots.free(TRAINING) == Place(TRAINING, "cpu")


def test_a_resting_task_keeps_its_place() -> None:
    slots = Slots({PULL: 1})
    slots.take("a", Place(PULL, None))
    slots.rest("a")
    assert slots.free(PULL) is None
    assert slots.resting == {"a"}
    slots.give_back("a")
    assert (slots.free(PULL), slots.resting) == (Place(PULL, None), frozenset())


def test_what_was_started_on_no_device_in_particular_takes_a_place_of_the_first() -> None:
    slots = Slots({TRAINING: 1}, devices={TRAINING: ("cpu",)})
    slots.take("adopted", Place(TRAINING, None))
    assert slots.free(TRAINING) is None
