"""Use cases, the ports they need and the configuration they take."""
