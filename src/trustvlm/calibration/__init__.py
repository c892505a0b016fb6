"""P(correct): from a score to the probability that a label is right."""
