from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from terakoya.domain.documents import Hit, Passage
from terakoya.domain.models import ModelArtifact, ModelInfo, ModelKind

HANDBOOK = (
    "Returns\n\nLamps may be returned within 21 days of delivery. Cushions cannot be returned once opened. "
    "Refunds arrive within 5 business days."
)
REGULATIONS = (
    "就業規則\n\n有給休暇は入社から6か月後に10日付与されます。申請は3営業日前までに行います。遅刻は上長に連絡します。"
)


@pytest.fixture
def hit_of() -> Callable[..., Hit]:
    def make(
        text: str,
        *,
        start: int = 0,
        document_id: str = "document_1",
        title: str = "Handbook",
        heading: Sequence[str] = (),
        dense: tuple[float, int] | None = (0.9, 1),
        sparse: tuple[float, int] | None = (5.0, 1),
    ) -> Hit:
        passage = Passage(
            f"{document_id}-{start}", document_id, 1, 0, start, start + len(text), text, 3, tuple(heading)
        )
        return Hit(passage, title, 1.0, *(dense or (None, None)), *(sparse or (None, None)))

    return make


@pytest.fixture
def artifact(tmp_path: Path) -> ModelArtifact:
    """A model of which only what a prompt's measure needs is there: words are its tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 2048}')
    now = datetime.now(UTC)
    info = ModelInfo("model_1", "writer", ModelKind.BASE, "llama", 1, 1, "a" * 64, "folder:x", "Apache-2.0", now)
    return ModelArtifact(info, tmp_path)
