"""Online EWC with a diagonal: its gradient, its anchor, and that a chain of tasks equals learning them together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from terakoya.exceptions import TrainingError
from terakoya.training.continual.diagonal_ewc import _PIECE, DiagonalEwc
from terakoya.training.continual.errors import ChainMismatch
from terakoya.training.continual.fisher import SequenceBatch
from terakoya.training.continual.regulariser import TaskEnd
from terakoya.training.continual.state import RetentionState, fold, tensors_sha256


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters())


def network() -> tuple[nn.Module, dict[str, nn.Parameter], RetentionState]:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    parameters = parameters_of(module)
    state = RetentionState(
        {name: torch.rand_like(each) for name, each in parameters.items()},
        {name: each.detach() + torch.randn_like(each) for name, each in parameters.items()},
        tasks=1,
    )
    return module, parameters, state


def cost(parameters: dict[str, nn.Parameter], state: RetentionState, strength: float, gamma: float) -> Tensor:
    """The penalty as the papers write it, for autograd."""
    terms = [(state.importance[name] * (each - state.anchor[name]).square()).sum() for name, each in parameters.items()]
    return strength / 2 * gamma * torch.stack(terms).sum()


def test_adding_to_the_gradient_is_what_autograd_makes_of_the_penalty() -> None:
    module, parameters, state = network()
    inputs, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1])
    ewc = DiagonalEwc(parameters, strength=3.0, gamma=0.9)
    ewc.on_task_start(state)
    whole = cross_entropy(module(inputs), labels) + cost(parameters, state, 3.0, 0.9)
    expected = torch.autograd.grad(whole, list(parameters.values()))
    cross_entropy(module(inputs), labels).backward()
    ewc.add_grad_(parameters, step=1)
    for parameter, gradient in zip(parameters.values(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-13, atol=1e-15)


def test_the_gradient_is_that_of_finite_differences() -> None:
    _, parameters, state = network()
    ewc = DiagonalEwc(parameters, strength=2.0)
    ewc.on_task_start(state)
    ewc.add_grad_(parameters, step=1)
    h = 1e-6
    for parameter in parameters.values():
        assert parameter.grad is not None  # also where the task itself gave none
        for place in np.ndindex(*parameter.shape):
            with torch.no_grad():
                parameter[place] += h
                above = cost(parameters, state, 2.0, 1.0)
                parameter[place] -= 2 * h
                below = cost(parameters, state, 2.0, 1.0)
                parameter[place] += h
            assert float(parameter.grad[place]) == pytest.approx(float(above - below) / (2 * h), rel=1e-6, abs=1e-8)


def test_large_weights_are_handled_in_pieces_with_the_same_result() -> None:
    torch.manual_seed(1)
    weight = nn.Parameter(torch.randn(3, _PIECE // 2 + 5))
    anchor, importance = torch.randn_like(weight), torch.rand_like(weight)
    ewc = DiagonalEwc({"weight": weight}, strength=0.5)
    ewc.on_task_start(RetentionState({"weight": importance}, {"weight": anchor}, 1))
    weight.grad = torch.ones_like(weight)
    ewc.add_grad_({"weight": weight}, step=1)
    torch.testing.assert_close(weight.grad, 1 + 0.5 * importance * (weight.detach() - anchor))


def test_the_pull_is_zero_at_the_anchor_and_towards_it_elsewhere() -> None:
    """Towards the anchor, not towards zero; and in proportion to lambda as it is at that step."""
    _, parameters, state = network()
    ewc = DiagonalEwc(parameters, strength=1.0)
    ewc.on_task_start(state)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state.anchor[name])
    ewc.add_grad_(parameters, step=1)
    assert all(not parameter.grad.any() for parameter in parameters.values())  # type: ignore[union-attr]
    assert ewc.diagnostics(parameters)["penalty"] == 0
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += 1
    ewc.add_grad_(parameters, step=2)
    ewc.strength = 3.0
    ewc.add_grad_(parameters, step=3)
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, 4 * state.importance[name])


def test_the_anchor_stays_when_the_weights_it_was_taken_from_move() -> None:
    """Also when the state shares their memory, as it does when a run starts at the anchor."""
    _, parameters, state = network()
    ewc = DiagonalEwc(parameters, strength=1.0)
    ewc.on_task_start(RetentionState(state.importance, ewc.anchor_of(parameters), 1))
    with torch.no_grad():
        for parameter in parameters.values():
            parameter += 1
    ewc.add_grad_(parameters, step=1)
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.grad, state.importance[name])


def test_losses_never_contain_the_penalty() -> None:
    """It is added to gradients only, so what is reported and evaluated is the task's loss."""
    module, parameters, state = network()
    inputs, labels = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1])
    before = cross_entropy(module(inputs), labels)
    ewc = DiagonalEwc(parameters, strength=1e6)
    ewc.on_task_start(state)
    ewc.add_grad_(parameters, step=1)
    assert torch.equal(cross_entropy(module(inputs), labels), before)


# Gaussian tasks whose inputs are orthogonal: their Fisher is diagonal, so the diagonal is all of it.


def gaussian_tasks() -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(4)
    tasks = []
    for rows in (12, 20, 9, 15):
        directions = torch.linalg.qr(torch.randn(rows, 3, dtype=torch.float64)).Q
        tasks.append((directions * torch.tensor([1.0, 3.0, 0.4]), torch.randn(rows, dtype=torch.float64)))
    return tasks


def learned_after(task: tuple[Tensor, Tensor], ewc: DiagonalEwc, weight: nn.Parameter) -> None:
    """The minimum of 1/2 |X w - y|^2 + penalty, by one Newton step: both are quadratics with a diagonal Hessian."""
    inputs, answers = task

    def gradient() -> Tensor:
        weight.grad = inputs.T @ (inputs @ weight.detach() - answers)
        ewc.add_grad_({"w": weight}, step=1)
        return weight.grad.clone()

    with torch.no_grad():
        here = gradient()
        weight += 1
        slope = gradient() - here
        weight -= 1 + here / slope
    assert float(gradient().abs().max()) < 1e-12


def joint(tasks: list[tuple[Tensor, Tensor]]) -> Tensor:
    inputs, answers = torch.cat([task[0] for task in tasks]), torch.cat([task[1] for task in tasks])
    return torch.linalg.lstsq(inputs, answers[:, None]).solution[:, 0]


def test_a_chain_with_the_full_fisher_ends_where_learning_all_tasks_together_does() -> None:
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    ewc = DiagonalEwc({"w": weight}, strength=1.0)
    state, tasks = None, gaussian_tasks()
    for number, task in enumerate(tasks, start=1):
        ewc.on_task_start(state)
        learned_after(task, ewc, weight)
        state = fold(state, {"w": task[0].square().sum(0)}, {"w": weight}, gamma=1.0)
        torch.testing.assert_close(weight.detach(), joint(tasks[:number]), rtol=0, atol=1e-12)


def test_one_penalty_a_task_would_count_the_early_tasks_twice() -> None:
    """The state has one anchor for this reason: the anchor of a task is itself where all tasks before it pulled."""
    tasks = gaussian_tasks()
    fishers = [task[0].square().sum(0) for task in tasks]
    anchors: list[Tensor] = []
    for number, (inputs, answers) in enumerate(tasks):
        earlier = list(zip(fishers[:number], anchors, strict=True))
        pull = torch.stack([fisher * anchor for fisher, anchor in earlier]).sum(0) if earlier else torch.zeros(3)
        anchors.append((inputs.T @ answers + pull) / sum(fishers[: number + 1]))
    assert float((anchors[-1] - joint(tasks)).abs().max()) > 0.01


def test_with_a_full_matrix_the_online_form_is_the_joint_solution_for_any_tasks() -> None:
    """The same recursion with matrices, on tasks whose Fisher is anything but diagonal."""
    torch.manual_seed(5)
    tasks = [(torch.randn(10, 3, dtype=torch.float64), torch.randn(10, dtype=torch.float64)) for _ in range(4)]
    state, anchor = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for inputs, answers in tasks:
        hessian = inputs.T @ inputs + state
        anchor = torch.linalg.solve(hessian, inputs.T @ answers + state @ anchor)
        state = state + inputs.T @ inputs
    torch.testing.assert_close(anchor, joint(tasks), rtol=0, atol=1e-12)


def test_the_state_stays_as_large_as_after_the_first_task() -> None:
    module, parameters, _ = network()
    ewc = DiagonalEwc(parameters, strength=1.0, gamma=0.5)
    state, sizes, first = None, [], None
    for task in range(5):
        ewc.on_task_start(state)
        inputs = torch.randn(4, 3, dtype=torch.float64)
        state = ewc.on_task_end(TaskEnd(parameters, [SequenceBatch(4, lambda inputs=inputs: module(inputs))], task))  # type: ignore[misc]
        sizes.append(state.size_bytes)
        first = first or state
    assert len(set(sizes)) == 1
    assert state is not None
    assert state.tasks == 5


def test_gamma_discounts_what_came_before_once_a_task() -> None:
    one = {"w": torch.tensor([1.0])}
    state = None
    for _ in range(3):
        state = fold(state, one, one, gamma=0.5)
    assert state is not None
    assert float(state.importance["w"]) == 1.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: {f"module.{name}": value for name, value in tensors.items()}, "'module.0.bias'"),
        (lambda tensors: {name: value for name, value in tensors.items() if name != "2.bias"}, "'2.bias'"),
        (lambda tensors: tensors | {"2.bias": torch.zeros(7)}, r"shape \[7\]"),
        (lambda tensors: {}, "protect nothing"),
    ],
    ids=["wrapped", "missing", "shape", "empty"],
)
def test_a_state_that_does_not_fit_is_an_error_and_never_a_penalty_of_zero(change, message) -> None:  # type: ignore[no-untyped-def]
    _, parameters, state = network()
    ewc = DiagonalEwc(parameters, strength=1.0)
    with pytest.raises(ChainMismatch, match=message):
        ewc.on_task_start(RetentionState(change(state.importance), change(state.anchor), 1))


def test_a_model_without_trained_weights_is_an_error() -> None:
    _, _, state = network()
    with pytest.raises(ChainMismatch, match="protect nothing"):
        DiagonalEwc({}, strength=1.0).on_task_start(state)


@pytest.mark.parametrize("gamma", [0.0, -1.0, 1.5])
def test_gamma_is_above_zero_and_at_most_one(gamma: float) -> None:
    with pytest.raises(TrainingError, match="gamma"):
        DiagonalEwc({}, strength=1.0, gamma=gamma)


def test_the_hash_of_weights_tells_every_change() -> None:
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}
    changed = [
        {"a": torch.tensor([1.0, 2.0]), "c": torch.tensor(3.0)},
        {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor(3.0)},
        {"a": torch.tensor([1.0, np.nextafter(np.float32(2), np.float32(3))]), "b": torch.tensor(3.0)},
    ]
    assert tensors_sha256(dict(reversed(weights.items()))) == tensors_sha256(weights)
    assert len({tensors_sha256(each) for each in [weights, *changed]}) == 4
