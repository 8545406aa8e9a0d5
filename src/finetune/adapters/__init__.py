"""Driven adapters: models, data, files, reports.  They never import one another."""
