"""A network as a graph of calls: traced, folded, run; where its weights and activations lie. Needs torch."""
