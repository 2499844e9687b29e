"""Torch helpers that know no model: records, operators, checkpoints, distribution, statistics."""
