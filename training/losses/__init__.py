"""Draws, critics and loss terms, one idea per file."""
