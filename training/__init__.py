"""Networks, data, losses and the one training loop. Imports run downward: see docs/contracts.md."""
