"""paradigm-bench: image-generation paradigms compared at equal training FLOPs on one shared backbone."""

import warnings

from bench.processor import settle

# fvcore and torchvision still call torch.jit.script at import; their users can do nothing about it
warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning)
settle()  # before anything loads torch: in the command line, workers, SLURM tasks, tests and notebooks alike
