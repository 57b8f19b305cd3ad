"""Networks as ONNX files: the reader of adaptive="read"."""

import logging
import tempfile
import warnings
from pathlib import Path

import torch

from dnnjpeg.files.atomic import make_folder, write_atomic
from dnnjpeg.networks.network import Network
from dnnjpeg.networks.reader import PICTURES, Reader, as_reader
from dnnjpeg.networks.tasks import Classification


def write_reader(network: Network, path: Path) -> None:
    """Write a network as a reader. The file replaces an older one when it is whole.

    Raises ValueError if a package is missing, or if the network cannot be exported. Raises OSError if the
    file cannot be written.
    """
    if not isinstance(network.task, Classification) or not network.is_differentiable:
        raise ValueError(f"{network.name} cannot be a reader: expected a classifier that torch runs")
    size = network.preprocess.size
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "reader.onnx"
        try:
            import onnx

            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels = torch.zeros(PICTURES, 3, size, size, device=network.device)
                torch.onnx.export(network.module, (pixels,), str(file), external_data=False, verbose=False)
            model = as_reader(onnx.load(str(file)), network.name, network.digest, network.preprocess)
        except ImportError as error:
            raise ValueError(
                f"{error.name} is missing, and the export needs it: pip install onnx onnxscript"
            ) from None
        except Exception as error:  # torch's exporter raises many kinds
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{network.name} cannot be exported as ONNX: {line}") from error
    Reader(model, network.name)  # it can be loaded
    make_folder(path.parent)
    write_atomic(path, model)
