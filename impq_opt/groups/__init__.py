"""The parts of a network that get a precision each: names, candidates, damage laws, and where they lie."""
