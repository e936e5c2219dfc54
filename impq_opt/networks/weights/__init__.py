"""Weights of the networks that impq-opt trained itself; see impq_opt.networks.shipped."""
