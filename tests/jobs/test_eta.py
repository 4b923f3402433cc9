"""Estimates come from measurements."""

import pytest

from darkroom.jobs.eta import Estimator, Speed, expected_steps
from darkroom.schemas import Task
from tests.engine.conftest import request

MEASURED = Estimator({("tintype", 128 * 128): Speed(step_seconds=0.1, other_seconds=0.2)})


def test_nothing_measured_nothing_promised() -> None:
    assert Estimator({}).seconds(request()) is None
    assert MEASURED.queue_seconds([(request(model="other"), 0)]) is None


def test_steps_and_images_count() -> None:
    asked = request(num_inference_steps=10, num_images=2)

    assert MEASURED.seconds(asked) == pytest.approx(20 * 0.1 + 2 * 0.2)
    assert MEASURED.seconds(asked, steps_done=15) == pytest.approx(5 * 0.1 + 2 * 0.2)


def test_a_size_never_measured_is_scaled_from_the_nearest() -> None:
    asked = request(width=256, height=128, num_inference_steps=10)

    assert MEASURED.seconds(asked) == pytest.approx(2 * (10 * 0.1 + 0.2))


def test_strength_shortens_a_job() -> None:
    assert expected_steps(request(Task.IMG2IMG, strength=0.5, num_inference_steps=20)) == 10


def test_newer_measurements_count_more_and_more() -> None:
    speed = Speed(1.0, 1.0)
    for _ in range(20):
        speed = speed.blended(Speed(2.0, 3.0))

    assert speed.step_seconds == pytest.approx(2.0, rel=0.01)
    assert speed.other_seconds == pytest.approx(3.0, rel=0.01)
