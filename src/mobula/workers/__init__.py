"""Background work: garbage collection, and the sweeper of what died half way."""
