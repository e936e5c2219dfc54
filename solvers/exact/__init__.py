"""The exact strategy: a bracketed multiplier and a core; branch and bound where costs couple groups."""
