"""OpenAI's Images API: a table of field translations, and answers in its shapes."""
