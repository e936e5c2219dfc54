"""Data sets by name or path, as one small type that gives rows by number.

===================  ===============================================================================
``fashion-mnist``    torchvision's folder, Debian's, or downloaded
``cifar10``          torchvision's folder, or downloaded
``digits``           scikit-learn's 1,797 digits of 8x8
a folder             one sub-folder of pictures per class, numbered as torchvision's ImageFolder does
a file of arrays     ``.npz``, ``.npy`` or ``.safetensors``: ``images`` (n, ...) or what else the network takes, such as
                     ``input_ids`` and ``attention_mask``, and ``labels`` (n,); or ``images_test`` and so on
a text               ``.txt``, in windows of the tokens of a language model
===================  ===============================================================================
"""

from impq_opt.data.dataset import Dataset
from impq_opt.data.sources import DATA_NAMES, load_data

__all__ = ["DATA_NAMES", "Dataset", "load_data"]
