"""Many files: who does what, and where results go."""
