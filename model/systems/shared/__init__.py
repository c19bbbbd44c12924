"""What the phases of several systems have in common: recipes, and what they are compared with."""
