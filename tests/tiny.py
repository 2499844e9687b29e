"""EG3D at a size for tests: some 10,000 weights, milliseconds an iteration. Words for run_train.py."""

TINY = [
    "resolution=16", "batch=8", "spec.channel_max=8", "model.sizes.tiny.plane_resolution=8", "model.sizes.tiny.w_dim=8",
    "model.sizes.tiny.z_dim=8", "model.sizes.tiny.widths=[8,8]", "model.raw_resolution=8", "model.samples=[4,4]",
    "workers=0",
]  # fmt: skip
