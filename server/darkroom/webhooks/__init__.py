"""Webhooks: telling other programs that a job has ended. The only place that calls out."""
