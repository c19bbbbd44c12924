"""All systems in one table, with their published figures."""
