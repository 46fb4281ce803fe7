"""What a candidate or a supernet is trained on: Lightning evaluators."""
