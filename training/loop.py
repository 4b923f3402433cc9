"""What all trainings share: optimizers, learning rate, moving average, checkpoints, budget."""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from darkroom.engine import cpu

CHECKPOINT_EVERY_S = 120.0
WARMUP_STEPS = 100
FINAL_RATE = 0.01
TIMED_STEPS = 12  # before a budget is turned into a number of steps; the first two do not count
MUON_RATE = 0.01
WEIGHT_DECAY = 0.01
SMALLEST_SIDE = 16  # of a matrix that Muon turns; smaller ones are vectors by their use
NOT_TURNED = ("conv_in", "conv_out", "embedding", "head")  # first and last layers stay with AdamW


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_dtype() -> torch.dtype:
    """bfloat16 where the hardware multiplies it; elsewhere float32, which is 100 times as fast."""
    able = torch.cuda.is_available() or cpu.multiplies_bfloat16()
    return torch.bfloat16 if able else torch.float32


def mixed_precision() -> torch.autocast:
    """Matrix products in bfloat16, where that is fast."""
    enabled = fast_dtype() == torch.bfloat16
    return torch.autocast(device().type, dtype=torch.bfloat16, enabled=enabled)


def learning_rate(step: int, steps: int) -> float:
    """A share of the peak: a linear warm-up, then half a cosine."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))
    return warm * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


class Muon(torch.optim.Optimizer):
    """Momentum whose every update is made orthogonal (Jordan et al. 2024), for matrices.

    torch.optim.Muon works in bfloat16 alone, which takes minutes a step on CPUs without it, and
    refuses convolutions. A convolution is a matrix here, (out, in × height × width): the order of
    the columns does not matter.
    """

    def __init__(self, parameters: list[nn.Parameter], rate: float) -> None:
        super().__init__(parameters, {"lr": rate, "momentum": 0.95, "decay": WEIGHT_DECAY})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[nn.Parameter, torch.Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["buffer"] = torch.zeros_like(parameter)
                state["buffer"].mul_(group["momentum"]).add_(parameter.grad)
                update = parameter.grad + group["momentum"] * state["buffer"]
                shape = (len(parameter), parameter[0].numel())
                alike.setdefault(shape, []).append((parameter, update))
            for (rows, columns), updates in alike.items():
                turned = orthogonal(torch.stack([update.flatten(1) for _, update in updates]))
                for (parameter, _), matrix in zip(updates, turned, strict=True):
                    parameter.mul_(1 - group["lr"] * group["decay"])
                    rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                    parameter.add_(matrix.view_as(parameter), alpha=-rate)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest orthogonal matrices, roughly: five Newton–Schulz steps; (N, rows, columns).

    Each step multiplies from the left by a polynomial of the Gram matrix, which is small where the
    matrix is wide, as a convolution's is. So the steps are done on the Gram matrix alone, and their
    product is applied once. That needs float32.
    """
    tall = matrices.size(-2) > matrices.size(-1)
    wide = matrices.mT if tall else matrices
    wide = wide / (wide.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = wide @ wide.mT
    product = unit = torch.eye(gram.size(-1), device=gram.device)
    for _ in range(5):
        factor = 3.4445 * unit - 4.7750 * gram + 2.0315 * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    turned = product @ wide
    return turned.mT if tall else turned


class Optimizer:
    """Muon for matrices and convolutions, AdamW for the rest.

    Args:
        modules: what is trained, by name.
        adam_rate: AdamW's peak learning rate.
    """

    def __init__(self, modules: dict[str, nn.Module], adam_rate: float) -> None:
        turned, self._rest = [], []
        for prefix, module in modules.items():
            for name, parameter in module.named_parameters():
                inner = not any(part in f"{prefix}.{name}" for part in NOT_TURNED)
                sides = (len(parameter), parameter[0].numel())
                matrix = parameter.ndim > 1 and min(sides) >= SMALLEST_SIDE and inner
                (turned if matrix else self._rest).append(parameter)
        adam = torch.optim.AdamW(
            self._rest, lr=adam_rate, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY
        )
        self._optimizers = (adam, Muon(turned, MUON_RATE))
        self._peaks = (adam_rate, MUON_RATE)

    def step(self, share: float) -> None:
        """Update the weights from their gradients, and clear these.

        Args:
            share: of the peak learning rates.
        """
        nn.utils.clip_grad_norm_(self._rest, 1.0)
        for optimizer, peak in zip(self._optimizers, self._peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self._optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict(state)


class MovingAverage:
    """An exponential moving average of weights that starts with short memory.

    The decay is min(`decay`, (1 + n) / (10 + n)) after n updates, as in Karras et al. 2022
    (arXiv 2206.00364), so that the random start is soon forgotten.
    """

    def __init__(self, modules: dict[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.weights = {
            name: {k: v.detach().float().clone() for k, v in module.state_dict().items()}
            for name, module in modules.items()
        }

    @torch.no_grad()
    def update(self, modules: dict[str, nn.Module]) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, module in modules.items():
            average = self.weights[name]
            current = module.state_dict()
            floats = [k for k, v in current.items() if v.is_floating_point()]
            torch._foreach_lerp_(
                [average[k] for k in floats], [current[k].float() for k in floats], 1 - decay
            )


def save(path: Path, state: Any) -> None:
    """Write a checkpoint whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)


def train(
    *,
    name: str,
    modules: dict[str, nn.Module],
    loss: Callable[[int, float], torch.Tensor],
    steps: int,
    adam_rate: float,
    checkpoint: Path,
    decay: float,
    budget_s: float | None = None,
) -> MovingAverage:
    """Run one training to its last step, from its last checkpoint if there is one.

    Args:
        name: shown on the progress bar.
        modules: trained together.
        loss: of a step; its second argument is the share of the training that is done, 0 to 1. It
            draws its own batch from a generator seeded by the step, so that a resumed run sees what
            an unbroken one would have seen.
        steps: in all, if there is no budget.
        adam_rate: AdamW's peak learning rate.
        checkpoint: file for weights, averages and the optimizer's state.
        decay: of the moving average.
        budget_s: seconds that the training may take. The first steps are timed, and as many are
            done as fit; the number stays when the training is resumed.

    Returns:
        The moving average, which is what is exported.
    """
    optimizer = Optimizer(modules, adam_rate)
    average = MovingAverage(modules, decay)
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device(), weights_only=True)
        for key, module in modules.items():
            module.load_state_dict(state["modules"][key])
        average.weights, average.updates = state["average"], state["updates"]
        optimizer.load_state_dict(state["optimizer"])
        first, steps, budget_s = state["step"], state["steps"], None

    def write(step: int) -> None:
        weights = {key: module.state_dict() for key, module in modules.items()}
        save(
            checkpoint,
            {
                "step": step,
                "steps": steps,
                "modules": weights,
                "average": average.weights,
                "updates": average.updates,
                "optimizer": optimizer.state_dict(),
            },
        )

    begun = saved = time.monotonic()
    smooth = float("nan")
    if budget_s is not None:
        steps = 1_000_000
    bar: Iterator[int] = tqdm(range(first, steps), name, initial=first, mininterval=5, total=None)
    for step in bar:
        if step >= steps:
            break
        value = loss(step, step / steps)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step(learning_rate(step, steps))
        average.update(modules)
        now = time.monotonic()
        if budget_s is not None and step == 1:
            begun_timed = now
        if budget_s is not None and step == TIMED_STEPS:
            each_s = (now - begun_timed) / (step - 1)
            steps = step + max(1, int((budget_s - (now - begun)) / each_s))
        smooth = value.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * value.item()
        bar.set_postfix_str(f"of {steps}, loss {smooth:.4f}", refresh=False)  # type: ignore[attr-defined]
        if now - saved > CHECKPOINT_EVERY_S and (budget_s is None or step > TIMED_STEPS):
            write(step + 1)
            saved = now
    if first < steps:
        write(steps)
    return average
