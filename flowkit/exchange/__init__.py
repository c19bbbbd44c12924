"""Trees and tars of other tools, in and out."""
