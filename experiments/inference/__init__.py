"""A network in use: predict, draw, validate, export."""
