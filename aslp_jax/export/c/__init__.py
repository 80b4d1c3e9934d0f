"""C source of a network: code, layers, weights, memory plan, runtime."""
