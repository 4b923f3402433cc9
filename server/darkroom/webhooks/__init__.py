"""Webhooks: messages to other programs that a job has ended. Only this folder makes such calls."""
