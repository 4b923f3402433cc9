"""Who goes into the next UNet call, by their weights and by what calls cost."""

import torch

from darkroom.engine.costs import Costs
from darkroom.engine.prompts import Conditioning
from darkroom.engine.sample import Row, UNetSample
from darkroom.engine.scheduler import Candidate, choose

# As measured of tintype on two cores: a call of 8 rows costs 2.3 of 2 rows, and that is the knee.
COSTS = Costs(((1, 0.0144), (2, 0.0189), (4, 0.0279), (8, 0.0434), (16, 0.0841)), area=256)


def candidate(
    work: int, index: int = 0, rows: int = 2, skipped: int = 0, leads: bool = True
) -> Candidate:
    nothing = torch.zeros(1)
    sample = UNetSample(
        index=index,
        seed=index,
        area=128 * 128,
        latents=nothing,
        scheduler=None,
        timesteps=torch.arange(work),
        generator=torch.Generator(),
        rows=(Row(Conditioning(nothing, None)),) * rows,
        guidance_scale=3.0,
        skipped=skipped,
    )
    return Candidate(sample, work, leads)


def chosen(*candidates: Candidate, max_rows: int = 8) -> list[int]:
    """The work of those who go."""
    samples = choose(candidates, lambda rows: COSTS.seconds(rows, 256), max_rows)
    return [len(sample.timesteps) for sample in samples]


def test_one_alone_goes_alone() -> None:
    assert chosen(candidate(20)) == [20]


def test_jobs_alike_go_together_up_to_the_knee() -> None:
    assert chosen(*(candidate(20, index) for index in range(6))) == [20] * 4


def test_rows_are_counted_and_not_samples() -> None:
    unguided = [candidate(20, index, rows=1) for index in range(10)]

    assert chosen(*unguided) == [20] * 8


def test_a_short_job_among_long_ones_goes_as_if_alone() -> None:
    assert chosen(*(candidate(50, index) for index in range(4)), candidate(4)) == [4]


def test_a_job_not_much_shorter_takes_the_others_along() -> None:
    assert chosen(candidate(30), candidate(25), candidate(20), candidate(30)) == [20, 25, 30, 30]


def test_whose_turn_it_is_goes_first_and_others_fill_up() -> None:
    others = [candidate(10, index, leads=False) for index in range(6)]

    assert chosen(*others, candidate(20)) == [20, 10, 10, 10]


def test_the_first_goes_even_if_it_is_over_the_limit() -> None:
    assert chosen(candidate(20), max_rows=1) == [20]


def test_whoever_is_skipped_goes_in_the_end() -> None:
    """A long job is not starved by short ones that keep coming."""
    long = candidate(150)
    waits = 0
    while 150 not in chosen(long, *(candidate(2, index) for index in range(4))):
        waits += 1
        assert waits < 100
    assert waits > 10


def test_costs_between_and_beyond_the_measured_rows() -> None:
    costs = Costs(((1, 1.0), (2, 1.5), (4, 2.5)), area=100)

    assert costs.seconds(3, 100) == 2.0
    assert costs.seconds(8, 100) == 5.0
    assert costs.seconds(1, 400) == 2.5  # four times the pixels as four rows
    assert costs.seconds(1, 10) == 0.5  # a call costs something however little it does


def test_the_knee_is_where_more_rows_bring_little() -> None:
    assert COSTS.knee(256) == 8
    assert COSTS.knee(1024) == 2
    assert COSTS.knee(2**20) == 1
