"""Searches as experiments of NNI, and what that takes."""
