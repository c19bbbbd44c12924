"""Settings of networks, phases and recipes. Only the standard library is imported here."""
