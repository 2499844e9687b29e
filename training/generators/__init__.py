"""Generators, one file a family. They never import one another; YAML ties them to the rest."""
