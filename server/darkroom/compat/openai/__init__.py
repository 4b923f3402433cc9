"""`/v1/images` and `/v1/models`: OpenAI's API, for its SDK and programs that use it."""
