"""Flask. Parses, enqueues, renders; computes nothing and never imports torch."""
