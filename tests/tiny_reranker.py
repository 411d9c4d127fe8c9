"""A tiny BERT cross-encoder with a word-level tokenizer, built in code."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tests.tiny_model import tiny_artifact

from terakoya.domain.models import ModelArtifact, ModelKind

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "寺子屋", "ship", "sea", "tea", "the", "is", "where", "a", "?")
POSITIONS = 48


def build_tiny_reranker(directory: Path, *, labels: int = 1, seed: int = 0) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    tokenizer.save_pretrained(directory)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        num_labels=labels,
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertForSequenceClassification(config).save_pretrained(directory)
    return directory


def reranker_artifact(path: Path) -> ModelArtifact:
    artifact = tiny_artifact(path)
    return dataclasses.replace(artifact, info=dataclasses.replace(artifact.info, kind=ModelKind.RERANKER))
