"""What several workers measured, in Prometheus' text format, as one."""

from collections.abc import Iterable

import structlog
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

log = structlog.get_logger()


def merge(texts: Iterable[tuple[str, str]]) -> list[Metric]:
    """Metrics by name, each sample labelled with its worker.

    Args:
        texts: worker and what it wrote. What cannot be read is passed over.
    """
    merged: dict[str, Metric] = {}
    for worker, text in texts:
        try:
            families = list(text_string_to_metric_families(text))
        except ValueError:
            log.warning("the worker's metrics cannot be read", worker=worker)
            continue
        for family in families:
            known = merged.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            known.samples += [
                sample._replace(labels={**sample.labels, "worker": worker})
                for sample in family.samples
            ]
    return list(merged.values())
