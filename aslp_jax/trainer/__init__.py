"""Training of one run: options, programs, state, loop, folder, summary and plots.

Internal: the command line is the interface. Importing this package imports no JAX.
"""
