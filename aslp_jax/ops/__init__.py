"""Operations that XLA runs slowly on a CPU, rewritten: convolutions, random bits."""
