"""Plain helpers without torch: errors, downloads, run folders, logging. Every floor may import them."""
