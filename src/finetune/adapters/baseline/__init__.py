"""Logistic regression on hashed character n-grams, with scikit-learn."""
