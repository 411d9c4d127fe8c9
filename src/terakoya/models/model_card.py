"""The model card: what is known of a model, as Markdown with the metadata block that model hubs read. Made of facts
alone, so that the card in a model's folder and the one a server shows say the same. Knows no files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from terakoya.domain.models import ModelInfo, ModelKind

Card = Mapping[str, Any]


def card_of(info: ModelInfo) -> str:
    """Return the card of a registered model."""
    return write_card(
        name=info.name,
        kind=info.kind,
        license=info.license,
        source=info.source,
        parameters=info.parameters,
        content_sha256=info.content_sha256,
        notes=info.notes,
        card=info.card,
    )


def write_card(
    *,
    name: str,
    kind: ModelKind,
    license: str,
    source: str,
    parameters: int,
    content_sha256: str | None,
    notes: str,
    card: Card,
) -> str:
    """Return the card; ``content_sha256`` is None while the model's own files, the card among them, are written."""
    is_tuned = "configuration" in card
    metadata: dict[str, Any] = {"license": license.lower() or "unknown"}
    if is_tuned:
        metadata["base_model"] = card["base"]["name"]
    metadata["library_name"] = "peft" if kind is ModelKind.ADAPTER else "transformers"
    metadata["pipeline_tag"] = _PIPELINE_TAGS.get(kind, "text-generation")
    metadata["tags"] = ["terakoya", *([card["strategy"]] if is_tuned else [])]
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items()), "---", ""]
    lines += [f"# {name}", "", *([notes, ""] if notes else [])]
    if is_tuned:
        lines += _tuned(card, source, license)
    elif "check" in card:
        lines += _exported(card, license, parameters)
    else:
        lines += _fetched(kind, source, license, parameters)
    if content_sha256 is not None:
        lines += [f"SHA-256 of the manifest: `{content_sha256}`", ""]
    return "\n".join(lines)


def _fetched(kind: ModelKind, source: str, license: str, parameters: int) -> list[str]:
    return [
        f"- Kind: {kind}",
        f"- Source: {source}",
        f"- Licence: {license or 'unknown'}",
        f"- Parameters: {parameters:,}",
        "",
        "Not trained here; what it can do and on what it was trained, its source says.",
        "",
    ]


def _exported(card: Card, license: str, parameters: int) -> list[str]:
    check = card["check"]
    return [
        f"- Made of: {card['made_of']['name']} (`{card['made_of']['id']}`), base {card['base']['name']}",
        f"- Form: {card['format']}",
        f"- Licence: {license or 'unknown'}",
        f"- Parameters: {parameters:,}",
        "",
        f"Opened again and compared with what it was made of: the likeliest next token is the same at "
        f"{check['top1_agreement']:.2%} of {check['places']} places ({check['least_agreement']:.1%} were needed), "
        f"log-probabilities differ by {check['largest_difference']:.3f} at most, {check['tokenized_alike']} of "
        f"{check['prompts']} texts become the same tokens, {check['stopped_alike']} of {check['answers']} answers end "
        "where they did.",
        "",
        *([f"{card['provenance']}", ""] if card.get("provenance") else []),
    ]


def _tuned(card: Card, source: str, license: str) -> list[str]:
    base, dataset, effective = card["base"], card["dataset"], card["effective"]
    return [
        f"Made by Terakoya, run `{source.removeprefix('task:')}`.",
        "",
        f"- Base: {base['name']} (`{base['id']}`), from {base['source']}",
        f"- Data: {dataset['name']}, {effective['rows']:,} rows, SHA-256 `{dataset['sha256']}`",
        f"- Method: {_method(card)}, {effective['trained_parameters']:,} trained parameters, "
        f"{effective['steps']:,} steps",
        f"- Licence: {license or 'unknown'}, as the base; whether the data allows it, only its owner knows",
        f"- Base weights: SHA-256 of the manifest `{base['sha256']}`. An adapter fits these weights only.",
        "",
        *_results(card),
        *_canaries(card),
        *_cost(card),
        *_limits(card),
        "## Configuration",
        "",
        "```json",
        json.dumps(card["configuration"], indent=1, ensure_ascii=False),
        "```",
        "",
    ]


def _method(card: Card) -> str:
    """Such as "lora (dora, base in nf4), objective dpo (beta 0.1)"; a run of an earlier version says less."""
    configuration = card["configuration"]
    adapter = configuration.get("adapter") or {}
    details = [adapter["kind"]] if adapter else []
    if adapter.get("quantization"):
        details.append(f"base in {adapter['quantization']}")
    settings = [f"{name} {value:g}" for name, value in configuration.get("objective_settings", {}).items()]
    objective = configuration.get("objective", "supervised")
    return f"{card['strategy']}{_within(details)}, objective {objective}{_within(settings)}"


def _within(details: Sequence[str]) -> str:
    return f" ({', '.join(details)})" if details else ""


def _results(card: Card) -> list[str]:
    heldout = card.get("heldout")
    if heldout is None:
        return ["No rows were held out, so nothing is known of how well it answers.", ""]
    exact = "label accuracy" if heldout.get("answers") == "labels" else "exact match"
    named = (
        ("exact_match", exact),
        ("preference_accuracy", "better answer of a pair likelier"),
        ("preference_margin", "by how much, nats per token"),
        ("chrf", "chrF"),
        ("token_f1", "token F1"),
        ("loss", "loss per label (nats)"),
    )
    rows = [
        f"| {name} | {_cell(figures['before'])} | {_cell(figures['after'])} |"
        for key, name in named
        if (figures := heldout.get(key)) is not None
    ]
    flips = card.get("flips") if heldout.get("exact_match") else None
    changed = [f"{flips['gained']:,} answers became right, {flips['lost']:,} became wrong.", ""] if flips else []
    return [
        f"## {heldout['examples']:,} held-out examples",
        "",
        *_table(("", "before", "after"), rows),
        f"{card['verdict']['text']} Intervals are of 95%.",
        "",
        *changed,
    ]


def _canaries(card: Card) -> list[str]:
    canaries: Sequence[Card] = card.get("canaries") or ()
    if not canaries:
        return []
    rows = [
        f"| {canary['language']} | {_cell(canary['before'])} | {_cell(canary['after'])} |"
        if canary["is_applicable"]
        else f"| {canary['language']} | {_cell(canary['before'])} | not applicable |"
        for canary in canaries
    ]
    return [
        "## What it kept",
        "",
        "Bits per byte on general text that has nothing to do with the task; more is worse.",
        "",
        *_table(("language", "before", "after"), rows),
        card["forgetting"]["text"],
        "",
    ]


def _cost(card: Card) -> list[str]:
    cost = card.get("cost")
    if not cost:
        return []
    return [
        "## Cost",
        "",
        f"{cost['training_seconds']:,.0f} s of training ({cost['seconds']:,.0f} s in all) on "
        f"{card['effective'].get('device', 'an unknown device')}, {cost['trained_tokens']:,} tokens, "
        f"{cost['peak_rss_bytes'] / 1e9:.1f} GB of memory at most.",
        "",
    ]


def _limits(card: Card) -> list[str]:
    limits = [
        "- Judged on rows like those it learned from; of other questions nothing is known.",
        "- What the base gets wrong or invents, this model may too.",
    ]
    if card.get("heldout") and card["heldout"]["examples"] < 100:
        limits.append(f"- {card['heldout']['examples']} held-out examples are few: see the intervals.")
    unknown = [canary["language"] for canary in card.get("canaries") or () if not canary["is_applicable"]]
    limits += [f"- The base had no {_LANGUAGE[each]}; expect none here." for each in unknown]
    return ["## Limits", "", *limits, ""]


_PIPELINE_TAGS = {ModelKind.EMBEDDER: "feature-extraction", ModelKind.RERANKER: "text-ranking"}
_LANGUAGE = {"en": "English", "ja": "Japanese"}


def _table(head: Sequence[str], rows: Sequence[str]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows, ""]


def _cell(interval: Mapping[str, float | None]) -> str:
    value = f"{interval['value']:.3f}"
    if interval["low"] is None or interval["high"] is None:
        return value
    return f"{value} ({interval['low']:.3f} to {interval['high']:.3f})"
