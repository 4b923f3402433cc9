"""Who may come in, from where, how often, and behind which certificate."""
