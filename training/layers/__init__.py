"""Layers with weights that several networks share."""
