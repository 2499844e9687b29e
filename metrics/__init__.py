"""Measuring instruments: they eat iterables of pictures; none knows a generator.

A metric is an object with its protocol's numbers as fields (configs/metric/*.yaml) and one method:
`metric(measured) -> {name: value}`. `measured` is whatever can show pictures in the three ways of pictures.Measured:
training/programs/measured.py wraps a generator and a data set so, a test whatever it likes. A metric that needs what
the pictures lack (depth, label maps, classes) raises ConfigError with one sentence; the caller decides whether to go on
without it.

Images are float [N, 3, H, W] in [-1, 1]; angles radians. May be imported by floor 4 and above.
"""
