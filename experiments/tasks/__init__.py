"""What a search is about: a task with its data, losses and metrics."""
