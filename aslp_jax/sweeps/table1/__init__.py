"""Table 1 of Dupont et al. 2022: cells, claims, report and plot. Internal."""
