"""Discriminators: networks that judge a GeneratorOutput."""
