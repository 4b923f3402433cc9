"""Training can be stopped at any moment and goes on as if it had not been."""

from pathlib import Path

import pytest
import torch
from torch import nn

from training import loop


def run(
    checkpoint: Path, stop_at: int | None = None, budget_s: float | None = None
) -> dict[str, torch.Tensor]:
    """Fit a small network in 30 steps; with `stop_at` it is interrupted at that step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))

    def loss(step: int, _done: float) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        inputs = torch.randn(8, 32, generator=torch.Generator().manual_seed(step))
        return nn.functional.mse_loss(model(inputs), inputs.sum(1, keepdim=True))

    average = loop.train(
        name="line",
        modules={"line": model},
        loss=loss,
        steps=30,
        adam_rate=0.05,
        checkpoint=checkpoint,
        decay=0.99,
        budget_s=budget_s,
    )
    return average.weights["line"]


def test_a_resumed_training_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_S", 0.0)
    unbroken = run(tmp_path / "unbroken.pt")

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken.pt", stop_at=17)
    resumed = run(tmp_path / "broken.pt")

    for name, weight in unbroken.items():
        assert torch.equal(weight, resumed[name])


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    finished = run(tmp_path / "done.pt")
    again = run(tmp_path / "done.pt", stop_at=0)

    assert all(torch.equal(weight, again[name]) for name, weight in finished.items())


def test_a_budget_is_turned_into_a_number_of_steps_that_stays(tmp_path: Path) -> None:
    run(tmp_path / "short.pt", budget_s=0.3)
    steps = torch.load(tmp_path / "short.pt", weights_only=True)["steps"]
    again = run(tmp_path / "short.pt", stop_at=0, budget_s=60)

    assert steps > loop.TIMED_STEPS
    assert torch.load(tmp_path / "short.pt", weights_only=True)["steps"] == steps
    assert again


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_muon_updates_convolutions_in_place(layout: torch.memory_format) -> None:
    """Its update of a matrix is orthogonal: all directions change alike."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(16, 32, 3).to(memory_format=layout)
    before = convolution.weight.detach().clone()
    optimizer = loop.Optimizer({"network": convolution}, adam_rate=1e-3)

    convolution(torch.randn(2, 16, 8, 8)).square().mean().backward()
    optimizer.step(1.0)

    change = (convolution.weight - before).detach().flatten(1)
    sizes = torch.linalg.svdvals(change)
    assert sizes.min() > 0.3 * sizes.max() > 0


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [loop.learning_rate(step, 1000) for step in range(1000)]

    assert rates.index(max(rates)) in range(loop.WARMUP_STEPS - 1, loop.WARMUP_STEPS + 1)
    assert max(rates) <= 1.0
    assert rates[-1] < 0.02
