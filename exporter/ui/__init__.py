"""What a person or a log collector sees: progress, logs, tables, errors, shell completion."""
