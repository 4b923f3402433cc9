"""Other servers' APIs: each translates its requests into ours, and our answers and errors back."""
