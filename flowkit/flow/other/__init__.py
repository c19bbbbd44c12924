"""Flow methods that are not flowkit's own; `flowkit.flow.methods` finds them by name."""
