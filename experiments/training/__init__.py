"""One network learns."""
