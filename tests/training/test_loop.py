"""Training can be stopped at any moment and goes on as if it had not been."""

from pathlib import Path

import pytest
import torch
from torch import nn

from training import loop


def run(checkpoint: Path, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """Fit a line in 30 steps; `stop_at` pulls the plug at that step."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)

    def loss(step: int) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        inputs = torch.randn(8, 2, generator=torch.Generator().manual_seed(step))
        return nn.functional.mse_loss(model(inputs), inputs.sum(1, keepdim=True))

    average = loop.train(
        name="line",
        modules={"line": model},
        loss=loss,
        steps=30,
        peak_lr=0.05,
        checkpoint=checkpoint,
    )
    return average.weights["line"]


def test_a_resumed_training_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_STEPS", 5)
    unbroken = run(tmp_path / "unbroken.pt")

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken.pt", stop_at=17)
    resumed = run(tmp_path / "broken.pt")

    for name, weight in unbroken.items():
        assert torch.equal(weight, resumed[name])


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    finished = run(tmp_path / "done.pt")
    again = run(tmp_path / "done.pt", stop_at=0)

    assert torch.equal(finished["weight"], again["weight"])


def test_the_learning_rate_rises_then_falls() -> None:
    rates = [loop.learning_rate(step, 1000, 1.0) for step in range(1000)]

    assert rates.index(max(rates)) in range(loop.WARMUP_STEPS - 1, loop.WARMUP_STEPS + 1)
    assert max(rates) <= 1.0
    assert rates[-1] < 0.02
