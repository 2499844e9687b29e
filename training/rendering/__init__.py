"""Cameras, rays, samples, volume: pure functions that own no weight and know no network."""
