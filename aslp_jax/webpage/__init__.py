"""Pages of HTML that stand alone: elements, tables, charts and pictures.

Internal: reports of runs and grids are made of it. A page is one file, which loads
nothing and works without a network.
"""
