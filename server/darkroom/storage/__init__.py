"""What outlives every process: tables, files, tokens, settings of clients, backups."""
