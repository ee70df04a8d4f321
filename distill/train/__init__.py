"""Training: a loop of epochs, and a step."""
