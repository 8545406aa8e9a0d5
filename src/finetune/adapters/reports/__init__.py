"""Reports that people read without us."""
