"""Label probabilities from a model behind an HTTP server."""
