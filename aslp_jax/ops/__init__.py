"""Fast forms of what XLA does slowly on a CPU: convolutions and random bits."""
