"""Back ends: what programs are written as, one a file."""
