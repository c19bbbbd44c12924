"""Files of other programs, read as foreign data; nothing here knows a network."""
