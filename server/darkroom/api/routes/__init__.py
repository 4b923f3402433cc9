"""The handlers: one file a group of addresses."""
