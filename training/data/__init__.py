"""Data sets behind one interface: folders, zips and the procedural critters."""
