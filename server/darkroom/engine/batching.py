"""Which samples share a UNet call."""

from collections.abc import Sequence

from darkroom.engine.sample import Sample


def choose(samples: Sequence[Sample], max_rows: int) -> list[Sample]:
    """Pick the samples of one job to step together, the least advanced first.

    Only images of one job share calls: then a picture's bytes depend on its request alone, and
    not on who else was waiting.

    Args:
        samples: all of one job.
        max_rows: UNet rows in one call; the first sample goes in even if it is over.

    Returns:
        Samples not yet denoised; empty when all are.
    """
    waiting = sorted((s for s in samples if not s.denoised), key=lambda s: (s.step, s.index))
    chosen: list[Sample] = []
    rows = 0
    for sample in waiting:
        if chosen and rows + sample.rows > max_rows:
            break
        chosen.append(sample)
        rows += sample.rows
    return chosen
