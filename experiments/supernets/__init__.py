"""Trained supernets: subnets, their search, reports on a space."""
