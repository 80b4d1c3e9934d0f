"""Command line `aslp-jax`, the only package that prints and reads flags.

Internal: the commands are the interface, not the modules.
"""
