"""What `flowkit train` and its relatives share: options of recipes and systems, settings from a file, commands in messages."""
