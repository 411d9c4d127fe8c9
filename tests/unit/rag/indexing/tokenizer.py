"""A small tokenizer in the embedder's format: words of ASCII, and every other character by itself."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence, Split, Whitespace


def small_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Sequence([Whitespace(), Split(Regex(r"[^\x00-\x7f]"), "isolated")])
    return tokenizer
