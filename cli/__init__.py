"""The ``flowkit`` command: the only place that parses arguments, prints and exits."""
