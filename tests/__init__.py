"""Specifications at the level a user sees: real server, real database, real engine."""
