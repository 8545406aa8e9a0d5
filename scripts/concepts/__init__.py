"""Plots of the concept pages: one function a plot, simulated with the package's own code."""
