"""Render programs: iterators of shots that know no model."""
