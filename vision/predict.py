"""What is in a picture? The five likeliest classes of each image file.

python -m vision.predict --model runs/demo-vit/model IMAGE...
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from minitransformer.errors import RunError, command_line, printable
from minitransformer.flags import FlagParser, whole_number
from minitransformer.run import choose_device
from vision import images
from weights import load_pretrained
from weights.load import read_labels

TOP = 5
