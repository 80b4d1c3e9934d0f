"""Budgets of Dupont et al. 2021: cells, claims, report and plot. Internal."""
