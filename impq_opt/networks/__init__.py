"""Networks by name: this package's own, torchvision's classifiers, or a factory of yours. Needs torch."""

from impq_opt.networks.loading import FACTORIES, load_network, read_state
from impq_opt.networks.shipped import SHIPPED

__all__ = ["FACTORIES", "SHIPPED", "load_network", "read_state"]
