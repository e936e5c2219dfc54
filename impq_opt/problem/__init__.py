"""The two nouns, a problem and an allocation, and how a declaration is read and checked."""
