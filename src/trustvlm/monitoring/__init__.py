"""Whether images still resemble those a model was made for: out-of-distribution images, drift."""
