"""Operators: one file each, one public function with its formula, and its plain-torch twin, the definition of correct.

The twins run on any device in any floating type and can be differentiated twice.
"""
