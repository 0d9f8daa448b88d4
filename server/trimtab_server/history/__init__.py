"""The history of all switches: a file for `trimtab check-history`, and log lines."""
