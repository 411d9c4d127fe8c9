"""Estimators of the Fisher on a real language model, and what retention costs.

    python benchmarks/fisher_smollm2.py pretrained --model FOLDER [--rows 32] [--draws 8]
    python benchmarks/fisher_smollm2.py learned --model FOLDER [--rows 32] [--draws 8]
    python benchmarks/fisher_smollm2.py layers --model FOLDER [--rows 32]
    python benchmarks/fisher_smollm2.py cost --model FOLDER [--sequences 256] [--repeats 3]

``FOLDER`` is the starter model as a Transformers folder; ``TERAKOYA_BENCH_DATA`` holds clinc150.

**pretrained**, **learned**: CLINC150 rows, answers as labels. In the last layer what a weight of o_proj, gate, up or
down does to a label happens at that label's position alone, so its exact Fisher is affordable: with hidden width d the
softmax's Fisher pulled back to the last norm has rank d, whose d factors replace the 49,152 classes. Each estimator is
drawn many times on the same rows and compared with it weight by weight, and by row and column sums (what the LoRA form
keeps); with the pretrained weights, and after the last layer has learned the rows. "Exact" leaves out the least likely
tokens that together have less than 1e-5 of the probability.

**layers**: all matrices of the middle and the last layer, against the mean of many draws of labels, one sequence each.

**cost**: a pass for the Fisher against an epoch of training over the same rows, and the penalty against a step, LoRA
r 16 and full, bfloat16 where this machine is faster in it. Each adds to ``benchmarks/results/fisher_smollm2.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from machine import RESULTS, describe_machine, save
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from train_clinc150 import clinc150_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from terakoya.data.tokenization import EncodedExample, encode_examples
from terakoya.domain.datasets import Example, Message
from terakoya.models.label_forward import LabelForward
from terakoya.models.probe import choose_compute_type
from terakoya.training.continual.diagonal_ewc import DiagonalEwc
from terakoya.training.continual.fisher import (
    Cotangents,
    SequenceBatch,
    diagonal_fisher,
    s_rademacher,
    sampled_labels,
)
from terakoya.training.continual.low_rank_ewc import LowRankEwc
from terakoya.training.continual.regulariser import Regulariser, TaskEnd
from terakoya.training.engine.loop import make_optimizer

EXACT = ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
BATCH = 8


def encoded_rows(folder: str, count: int) -> list[EncodedExample]:
    examples = [
        Example(number, (Message("user", row["text"]), Message("assistant", row["intent"])))
        for number, row in enumerate(clinc150_rows("train", 1)[:count], start=1)
    ]
    rows = encode_examples(examples, AutoTokenizer.from_pretrained(folder)).complete()
    return sorted(rows, key=lambda row: len(row.input_ids))


class Tail:
    """The last layer, its norm and the head, on what the layers before made of each row, computed once."""

    def __init__(self, causal: Any, rows: list[EncodedExample]) -> None:
        self.model, self.head = causal.model, causal.lm_head
        self.layer = self.model.layers[-1]
        self.rows = rows
        self.inputs: list[Tensor] = []
        handle = self.layer.register_forward_pre_hook(
            lambda _, args, kwargs: self.inputs.append(args[0] if args else kwargs["hidden_states"]), with_kwargs=True
        )
        with torch.no_grad():
            for row in rows:
                self.model(input_ids=torch.tensor([row.input_ids]), use_cache=False)
        handle.remove()
        self.parameters = {f"{name}.weight": self.layer.get_submodule(name).weight for name in EXACT}

    def states(self, index: int) -> Tensor:
        """[labels, width] after the last norm."""
        hidden = self.inputs[index]
        positions = torch.arange(hidden.shape[1])[None]
        output = self.layer(
            hidden, attention_mask=None, position_embeddings=self.model.rotary_emb(hidden, position_ids=positions)
        )
        output = output[0] if isinstance(output, tuple) else output
        start = self.rows[index].label_spans[0][0]
        return cast(Tensor, self.model.norm(output)[0, start - 1 : -1])

    def logits(self, indices: list[int]) -> Tensor:
        return cast(Tensor, self.head(torch.cat([self.states(index) for index in indices])))

    def labels(self, indices: list[int]) -> Tensor:
        return torch.tensor([token for index in indices for token in self.rows[index].answer_ids])

    def batches(self, size: int) -> list[SequenceBatch]:
        groups = torch.arange(len(self.rows)).split(size)
        return [SequenceBatch(len(group), lambda group=group: self.logits(group.tolist())) for group in groups]  # type: ignore[misc]

    def learn(self, steps: int) -> float:
        """Train the whole last layer on the rows; return the loss a label at the end."""
        optimizer = torch.optim.Adam(self.layer.parameters(), lr=2e-3)
        for step in range(steps):
            chosen = [(step * BATCH + place) % len(self.rows) for place in range(BATCH)]
            optimizer.zero_grad()
            cross_entropy(self.logits(chosen), self.labels(chosen)).backward()
            optimizer.step()
        return self.loss()

    @torch.no_grad()
    def loss(self) -> float:
        every = list(range(len(self.rows)))
        return float(cross_entropy(self.logits(every), self.labels(every)))

    @torch.no_grad()
    def exact(self) -> dict[str, Tensor]:
        """The exact diagonal Fisher, mean over rows."""
        totals = {name: torch.zeros_like(weight) for name, weight in self.parameters.items()}
        for index in range(len(self.rows)):
            seen: dict[str, Tensor] = {}
            handles = [
                self.layer.get_submodule(name).register_forward_pre_hook(
                    lambda _, args, name=name, seen=seen: seen.__setitem__(name, args[0])
                )
                for name in EXACT
            ]
            states = self.states(index)
            for handle in handles:
                handle.remove()
            start = self.rows[index].label_spans[0][0]
            for target, state in enumerate(states):
                place = start - 1 + target
                inputs = {name: seen[name][0, place] for name in EXACT}
                for name, squared in self._squared(state, self.inputs[index][0, place], inputs).items():
                    totals[f"{name}.weight"] += torch.outer(squared, inputs[name].square())
        return {name: total / len(self.rows) for name, total in totals.items()}

    def _squared(self, state: Tensor, before: Tensor, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sum over the factors of the softmax's Fisher of the squared gradient at each linear layer's output, [out]."""
        p, order = (self.head.weight @ state).softmax(-1).sort(descending=True)
        kept = int((p.cumsum(0) < 1 - 1e-5).sum()) + 1
        p, table = p[:kept], self.head.weight[order[:kept]]
        mean = table.T @ p
        spread = (table * p[:, None]).T @ table - torch.outer(mean, mean)  # [width, width]
        values, vectors = torch.linalg.eigh(spread.double())
        factors = (vectors * values.clamp(min=0).sqrt()).T.float()  # [factors, width]
        layer, count = self.layer, len(factors)
        with torch.enable_grad():
            outputs = {"self_attn.o_proj": layer.self_attn.o_proj(inputs["self_attn.o_proj"]).expand(count, -1)}
            outputs["self_attn.o_proj"] = outputs["self_attn.o_proj"].clone().requires_grad_()
            attended = before + outputs["self_attn.o_proj"]
            normed = layer.post_attention_layernorm(attended)
            for name in ("mlp.gate_proj", "mlp.up_proj"):
                outputs[name] = layer.get_submodule(name)(normed)
            outputs["mlp.down_proj"] = layer.mlp.down_proj(
                layer.mlp.act_fn(outputs["mlp.gate_proj"]) * outputs["mlp.up_proj"]
            )
            final = self.model.norm(attended + outputs["mlp.down_proj"])
            gradients = torch.autograd.grad(final, list(outputs.values()), factors)
        return {name: gradient.square().sum(0) for name, gradient in zip(outputs, gradients, strict=True)}


def of_labels(tail: Tail, size: int, *, mean: bool) -> Cotangents:
    """The data's labels: the empirical Fisher; with the mean of a batch, the common bug."""
    groups = iter(torch.arange(len(tail.rows)).split(size))

    def cotangents(logits: Tensor, _: torch.Generator) -> Iterator[Tensor]:
        chosen = next(groups)
        labels = tail.labels(chosen.tolist())
        difference = one_hot(labels, logits.shape[-1]) - logits.detach().softmax(-1)
        # The bug: every batch's mean gradient squared, then averaged over batches.
        yield difference / len(chosen) * len(chosen) ** 0.5 if mean else difference

    return cotangents


def compare(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Trace ratio, relative L2 error, correlation of weights and of row and column sums."""
    mine, right = (torch.cat([part[name].flatten() for name in exact]).double() for part in (found, exact))
    sums = [torch.cat([part[name].sum(axis) for name in exact for axis in (0, 1)]).double() for part in (found, exact)]
    return {
        "trace_ratio": float(mine.sum() / right.sum()),
        "relative_l2": float((mine - right).norm() / right.norm()),
        "correlation": float(torch.corrcoef(torch.stack([mine, right]))[0, 1]),
        "correlation_of_sums": float(torch.corrcoef(torch.stack(sums))[0, 1]),
    }


def drawn(draw: Callable[[int], dict[str, Tensor]], exact: dict[str, Tensor], draws: int) -> dict[str, Any]:
    figures = [compare(draw(seed), exact) for seed in range(draws)]
    result: dict[str, Any] = {}
    for name in figures[0]:
        values = [each[name] for each in figures]
        result[name] = {"mean": float(f"{statistics.fmean(values):.4g}")}
        if draws > 1:
            result[name]["deviation"] = float(f"{statistics.stdev(values):.2g}")
    return result


def estimators(folder: str, rows: list[EncodedExample], draws: int, *, steps: int) -> dict[str, Any]:
    """Against the exact Fisher of the last layer, after so many steps of learning the rows."""
    causal = cast(Any, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)).eval()
    causal.requires_grad_(False)
    tail = Tail(causal, rows)
    tail.layer.requires_grad_(True)
    loss = tail.learn(steps) if steps else tail.loss()
    started = time.perf_counter()
    exact = tail.exact()
    labels = len(tail.labels(list(range(len(rows)))))
    found: dict[str, Any] = {"rows": len(rows), "labels": labels, "draws": draws, "steps": steps}
    found |= {"loss": round(loss, 4), "trace": float(f"{sum(map(total, exact.values())):.4g}")}
    found["seconds_exact"] = round(time.perf_counter() - started, 1)

    def estimate(cotangents: Cotangents, size: int, seed: int) -> dict[str, Tensor]:
        return diagonal_fisher(tail.parameters, tail.batches(size), cotangents=cotangents, seed=seed).values

    found["s_rademacher, batches of 8"] = drawn(lambda seed: estimate(s_rademacher, BATCH, seed), exact, draws)
    found["s_rademacher, one by one"] = drawn(lambda seed: estimate(s_rademacher, 1, seed), exact, draws)
    found["sampled labels, one by one"] = drawn(lambda seed: estimate(sampled_labels, 1, seed), exact, draws)
    found["sampled labels, batches of 8"] = drawn(lambda seed: estimate(sampled_labels, BATCH, seed), exact, draws)
    found["empirical, one by one"] = drawn(lambda seed: estimate(of_labels(tail, 1, mean=False), 1, seed), exact, 1)
    found["empirical, mean of batches of 8 (the bug)"] = drawn(
        lambda seed: estimate(of_labels(tail, BATCH, mean=True), BATCH, seed), exact, 1
    )
    return found


def total(values: Tensor) -> float:
    return float(values.sum(dtype=torch.float64))


def whole_layers(folder: str, rows: list[EncodedExample], draws: int = 8) -> dict[str, Any]:
    """All matrices of the middle and the last layer: batches with random signs, against the mean of many draws."""
    causal = cast(Any, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)).eval()
    forward = LabelForward.choose(causal, rows[:3])
    figures: dict[str, Any] = {"rows": len(rows), "reference_draws": draws}
    causal.requires_grad_(False)
    layers = {"middle": len(causal.model.layers) // 2, "last": len(causal.model.layers) - 1}
    parameters: dict[str, nn.Parameter] = {}
    for which, number in layers.items():
        for name, module in causal.model.layers[number].named_modules():
            if isinstance(module, nn.Linear):
                module.weight.requires_grad_(True)
                parameters[f"{which}.{name}"] = module.weight
    single = [SequenceBatch(1, lambda row=row: forward.logits([row])) for row in rows]  # type: ignore[misc]

    def many(logits: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
        for _ in range(draws):
            yield next(sampled_labels(logits, generator)) / draws**0.5

    reference = diagonal_fisher(parameters, single, cotangents=many).values
    groups = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
    together = [SequenceBatch(len(group), lambda group=group: forward.logits(group)) for group in groups]  # type: ignore[misc]
    estimates = [diagonal_fisher(parameters, together, seed=seed).values for seed in range(4)]
    for which in layers:
        part = {name: value for name, value in reference.items() if name.startswith(which)}
        figures[which] = drawn(lambda seed: estimates[seed], part, 4)
    return figures


def cost(folder: str, rows: list[EncodedExample], repeats: int) -> dict[str, Any]:
    kind = choose_compute_type(torch.device("cpu"), hidden=576, intermediate=1536).dtype
    long = [merged(rows, start) for start in range(0, 4 * BATCH, 4)]
    figures: dict[str, Any] = {"compute_type": str(kind), "sequences": len(rows), "repeats": repeats}
    for space in ("lora", "full"):
        causal = cast(Any, AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
        if space == "lora":
            causal.to(kind)
            adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
            causal = get_peft_model(causal, adapter)
        module = causal.eval()  # no dropout in either; evaluation mode is what a Fisher pass uses
        parameters = {name: each for name, each in module.named_parameters() if each.requires_grad}
        for parameter in parameters.values():
            parameter.data = parameter.data.float()
        with torch.autocast("cpu", torch.bfloat16, enabled=kind is torch.bfloat16):
            figures[space] = costs(module, parameters, rows, long, space, repeats)
        print(json.dumps({space: figures[space]}, indent=1), file=sys.stderr)
    return figures


def merged(rows: list[EncodedExample], start: int) -> EncodedExample:
    """Four rows end to end as one of about 190 tokens, as a realistic answer's length."""
    ids = [token for row in rows[start : start + 4] for token in row.input_ids]
    return EncodedExample(row=start, input_ids=ids, label_spans=((len(ids) // 2, len(ids)),))


def costs(
    module: Any,
    parameters: dict[str, nn.Parameter],
    rows: list[EncodedExample],
    long: list[EncodedExample],
    space: str,
    repeats: int,
) -> dict[str, Any]:
    forward = LabelForward.choose(module, rows[:3])
    optimizer = make_optimizer(parameters, weight_decay=0.0)
    optimizer.param_groups[0]["lr"] = 1e-5
    regulariser: Regulariser = (
        LowRankEwc(module, strength=1.0) if space == "lora" else DiagonalEwc(parameters, strength=1.0)
    )
    regulariser.on_task_start(None)
    groups = [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]

    def step(group: list[EncodedExample]) -> None:
        forward.losses(group).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def epoch() -> None:
        for group in groups:
            step(group)

    def fisher() -> Any:
        seen = forward.through_modules()
        batches = [SequenceBatch(len(group), lambda group=group: seen.logits(group)) for group in groups]  # type: ignore[misc]
        return regulariser.on_task_end(TaskEnd(parameters, batches, seed=0))

    state = fisher()
    regulariser.on_task_start(state)
    times: dict[str, list[float]] = {"epoch": [], "fisher": [], "short_step": [], "long_step": [], "penalty": []}
    for _ in range(repeats):
        times["epoch"].append(clock(epoch))
        times["fisher"].append(clock(fisher))
        times["short_step"].append(clock(lambda: step(groups[len(groups) // 2])))
        times["long_step"].append(clock(lambda: step(long)))
        for parameter in parameters.values():
            parameter.grad = torch.zeros_like(parameter)
        times["penalty"].append(clock(lambda: regulariser.add_grad_(parameters, 1)))
        optimizer.zero_grad(set_to_none=True)
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "seconds": {name: [round(value, 4) for value in values] for name, values in times.items()},
        "fisher_pass_in_epochs": round(median["fisher"] / median["epoch"], 2),
        "penalty_per_cent_of_a_step": {
            f"8 rows of {statistics.fmean(len(row.input_ids) for row in groups[len(groups) // 2]):.0f} tokens": round(
                100 * median["penalty"] / median["short_step"], 2
            ),
            f"8 rows of {statistics.fmean(len(row.input_ids) for row in long):.0f} tokens": round(
                100 * median["penalty"] / median["long_step"], 2
            ),
        },
        "state_bytes": {
            "importance": sum(4 * each.numel() for each in state.importance.values()),
            "anchor": sum(4 * each.numel() for each in state.anchor.values()),
        },
        "forward": str(forward.way),
    }


def clock(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("pretrained", "learned", "layers", "cost"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    machine = describe_machine()
    torch.manual_seed(0)
    path = RESULTS / "fisher_smollm2.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    rows = encoded_rows(asked.model, asked.sequences if asked.part == "cost" else asked.rows)
    if asked.part == "cost":
        figures["cost"] = cost(asked.model, rows, asked.repeats)
    elif asked.part == "layers":
        figures["layers"] = whole_layers(asked.model, rows)
    else:
        steps = 60 if asked.part == "learned" else 0
        figures[asked.part] = estimators(asked.model, rows, asked.draws, steps=steps)
    figures[asked.part]["machine"] = machine
    save("fisher_smollm2", figures, machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
