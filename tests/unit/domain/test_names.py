from __future__ import annotations

import pytest

from terakoya.domain.names import check_name
from terakoya.exceptions import InvalidConfig


@pytest.mark.parametrize("write", [str, str.upper, lambda text: "ｔ" + text[1:]])
def test_no_name_can_be_taken_for_an_id_however_it_is_written(write: type[str]) -> None:
    with pytest.raises(InvalidConfig, match="looks like a generated id"):
        check_name(write("task_01m8cdzsew8y3547440x2dgx0n"))
