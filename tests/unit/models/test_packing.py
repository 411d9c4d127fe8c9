from __future__ import annotations

from dataclasses import dataclass

import torch

from terakoya.models.packing import pack, shared_prefix


@dataclass(frozen=True)
class Spanned:
    input_ids: list[int]
    label_spans: tuple[tuple[int, int], ...]


def Row(input_ids: list[int], labels_start: int) -> Spanned:  # noqa: N802 - reads as the row it makes
    """One answer at the end."""
    return Spanned(input_ids, ((labels_start, len(input_ids)),))


def test_the_shared_prefix_ends_where_rows_differ() -> None:
    assert shared_prefix([Row([5, 6, 7, 8, 1], 4), Row([5, 6, 9, 8, 1], 4)]) == 2
    assert shared_prefix([Row([5, 6, 7, 8, 1], 4), Row([4, 6, 9, 8, 1], 4)]) == 0


def test_every_row_keeps_the_position_that_predicts_its_first_label() -> None:
    # The same prompt twice, two answers: position 2 predicts both, so it is computed for each row.
    assert shared_prefix([Row([5, 6, 7, 1, 2], 3), Row([5, 6, 7, 3, 2], 3)]) == 2


def test_one_row_alone_shares_nothing() -> None:
    assert shared_prefix([Row([5, 6, 7, 8], 3)]) == 0


def test_a_batch_lays_rows_end_to_end_behind_their_prefix() -> None:
    batch = pack([Row([5, 6, 7, 8, 1], 3), Row([5, 6, 9, 2], 3)])
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 1, 9, 2]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3]]
    assert batch.labels.tolist() == [8, 1, 2]
    assert batch.predicting.tolist() == [2, 3, 5]
    assert batch.label_counts == (2, 1)
    assert batch.row_tokens == 9
    assert batch.layout.prefix == 2


def test_a_token_may_look_at_the_prefix_and_back_along_its_own_row() -> None:
    mask = pack([Row([5, 6, 7, 8, 1], 4), Row([5, 6, 9, 2, 1], 4)]).layout.mask
    assert mask.tolist() == [
        [True, True, True, False, False],
        [True, True, True, True, False],
        [True, True, True, True, True],
    ]


def test_gather_and_scatter_are_each_others_inverse() -> None:
    layout = pack([Row([5, 6, 7, 8, 1], 4), Row([5, 6, 9], 2)]).layout
    flat = torch.arange(layout.prefix, layout.prefix + len(layout.scatter))
    assert layout.gather.flatten()[layout.scatter].tolist() == flat.tolist()


def test_labels_in_several_places_are_each_predicted_from_the_token_before() -> None:
    rows = [Spanned([5, 6, 7, 8, 9, 1, 2], ((2, 4), (6, 7))), Spanned([5, 3, 4], ((1, 3),))]
    batch = pack(rows)
    assert batch.layout.prefix == 0  # the second row's first label is predicted from position 0
    assert batch.labels.tolist() == [7, 8, 2, 3, 4]
    assert batch.input_ids[0, batch.predicting].tolist() == [6, 7, 1, 5, 3]
    assert batch.label_counts == (3, 2)
