"""The gallery: declared problem families and shipped instances."""
