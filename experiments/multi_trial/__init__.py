"""Candidates trained alone, under NNI."""
