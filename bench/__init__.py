"""paradigm-bench: image-generation paradigms compared at equal training FLOPs on one shared backbone."""

import warnings

# fvcore and torchvision still call torch.jit.script at import; their users can do nothing about it
warnings.filterwarnings("ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning)
