"""What a plan looks like on the command line: whether the run can start, what it needs, and a few rows with the
tokens that are learned in double brackets. Knows the answer of ``POST /api/train/plan``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from terakoya.cli.output import duration_text, json_wanted, print_fields, print_json, say, size_text
from terakoya.cli.texts import _, explain

_SHOWN_CHARACTERS = 1200


def print_plan(plan: Mapping[str, Any]) -> None:
    if json_wanted():
        print_json(plan)
        return
    say(_("Ready to start.") if plan["ready"] else _("This cannot be started as it is."))
    for each in (*plan["problems"], *plan["warnings"]):
        say(f"- {explain('plan', each['code'], each['message'])}")
    print_fields(_facts(plan))
    for sample in plan["samples"]:
        say("")
        say(_("Row %(row)s: %(tokens)s tokens, learned are those in ⟦ ⟧", row=sample["row"], tokens=sample["tokens"]))
        say(_rendered(sample))


def _facts(plan: Mapping[str, Any]) -> dict[str, str]:
    tokens, steps, memory, time, disk = (plan[name] for name in ("tokens", "steps", "memory", "time", "disk"))
    facts = {
        _("rows"): _(
            "%(train)s to learn from, %(heldout)s to judge by", train=tokens["rows"], heldout=tokens["heldout_rows"]
        ),
        _("tokens of a row"): f"p50 {tokens['p50']}, p95 {tokens['p95']}, p99 {tokens['p99']}, max {tokens['max']}",
    }
    if steps is not None:
        facts[_("steps")] = str(steps["total"])
        facts[_("at once")] = _(
            "up to %(tokens)s tokens, %(parts)s parts a step",
            tokens=steps["micro_batch_tokens"],
            parts=steps["micro_batches"],
        )
        facts[_("recompute activations")] = _("yes") if steps["gradient_checkpointing"] else _("no")
        facts[_("trained parameters")] = f"{steps['trained_parameters']:,}"
    if memory is not None:
        have = {"need": size_text(memory["peak"]), "have": size_text(memory["available"])}
        rough = plan["basis"] == "shape"
        facts[_("memory")] = (
            _("at most about %(need)s, %(have)s free", **have) if rough else _("about %(need)s, %(have)s free", **have)
        )
    facts[_("time")] = _("not known yet") if time is None else _("about %(time)s", time=duration_text(time["seconds"]))
    facts[_("disk")] = _(
        "%(need)s, %(have)s free", need=size_text(disk["needed_bytes"]), have=size_text(disk["free_bytes"])
    )
    return facts


def _rendered(sample: Mapping[str, Any]) -> str:
    gap = [_("\n… %(n)s tokens not shown …\n", n=sample["omitted_tokens"])] if sample["omitted_tokens"] else []
    text = "".join([*_marked(sample["beginning"]), *gap, *_marked(sample["end"])])
    if len(text) <= _SHOWN_CHARACTERS:
        return text
    half = _SHOWN_CHARACTERS // 2
    left_out = len(text) - 2 * half
    return text[:half] + _("\n… %(n)s characters not shown, --json has them …\n", n=left_out) + text[-half:]


def _marked(tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    for trained, run in groupby(tokens, key=lambda token: bool(token["trained"])):
        text = "".join(token["text"] for token in run)
        parts.append(f"⟦{text}⟧" if trained else text)
    return parts
