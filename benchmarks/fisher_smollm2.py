"""Estimators of the Fisher on a real language model.

    python benchmarks/fisher_smollm2.py pretrained --model FOLDER [--rows 32] [--draws 8]
    python benchmarks/fisher_smollm2.py learned --model FOLDER [--rows 32] [--draws 8]
    python benchmarks/fisher_smollm2.py layers --model FOLDER [--rows 32]

``FOLDER`` is the starter model as a Transformers folder; ``TERAKOYA_BENCH_DATA`` holds clinc150.

**pretrained**, **learned**: CLINC150 rows, answers as labels. In the last layer what a weight of o_proj, gate, up or
down does to a label happens at that label's position alone, so its exact Fisher is affordable: with hidden width d the
softmax's Fisher pulled back to the last norm has rank d, whose d factors replace the 49,152 classes. Each estimator is
drawn many times on the same rows and compared with it weight by weight, and by row and column sums (what the LoRA form
keeps); with the pretrained weights, and after the last layer has learned the rows. "Exact" leaves out the least likely
tokens that together have less than 1e-5 of the probability.

**layers**: all matrices of the middle and the last layer, against the mean of many draws of labels, one sequence each.

Each part adds to ``benchmarks/results/fisher_smollm2.json``.
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
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from train_clinc150 import clinc150_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from terakoya.data.tokenization import EncodedExample, encode_examples
from terakoya.domain.datasets import Example, Message
from terakoya.models.label_forward import LabelForward
from terakoya.training.continual.fisher import (
    Cotangents,
    SequenceBatch,
    diagonal_fisher,
    s_rademacher,
    sampled_labels,
)

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
    for size in (BATCH, 2 * BATCH):
        groups = [rows[start : start + size] for start in range(0, len(rows), size)]
        together = [SequenceBatch(len(group), lambda group=group: forward.logits(group)) for group in groups]  # type: ignore[misc]
        estimates = [diagonal_fisher(parameters, together, seed=seed).values for seed in range(4)]
        for which in layers:
            part = {name: value for name, value in reference.items() if name.startswith(which)}
            figures[f"{which}, random signs in batches of {size}"] = drawn(lambda seed: estimates[seed], part, 4)  # noqa: B023
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("pretrained", "learned", "layers"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--draws", type=int, default=8)
    asked = parser.parse_args()
    machine = describe_machine()
    torch.manual_seed(0)
    path = RESULTS / "fisher_smollm2.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    rows = encoded_rows(asked.model, asked.rows)
    if asked.part == "layers":
        figures["layers"] = whole_layers(asked.model, rows)
    else:
        steps = 60 if asked.part == "learned" else 0
        figures[asked.part] = estimators(asked.model, rows, asked.draws, steps=steps)
    figures[asked.part]["machine"] = machine
    save("fisher_smollm2", figures, machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
