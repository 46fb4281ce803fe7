"""Supernets in training: strategies, samplers, distillation, derivation of an arch."""
