"""Networks that compute with integers alone. Internal.

`calibration` finds the range of each value on images, `convert` makes an integer graph
of a graph of floats, and `reference` computes it. What `reference` computes is the
definition; every other implementation must give the same numbers.
"""
