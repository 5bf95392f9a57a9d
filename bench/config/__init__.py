"""What an experiment states: stable names for experiment files."""

from bench.config.data import ImageData, JudgeConfig, TextEncoderConfig
from bench.config.experiment import Evaluation, Experiment, Json, Method, Recipe, Setting, Size, grid, merged
from bench.config.ladder import Ladder
from bench.config.run import Run, parse_budget
from bench.config.tokenizers import TOKENIZERS, AutoencoderConfig, PixelConfig, PretrainedConfig, TokenizerConfig

__all__ = [
    "TOKENIZERS",
    "AutoencoderConfig",
    "Evaluation",
    "Experiment",
    "ImageData",
    "Json",
    "JudgeConfig",
    "Ladder",
    "Method",
    "PixelConfig",
    "PretrainedConfig",
    "Recipe",
    "Run",
    "Setting",
    "Size",
    "TextEncoderConfig",
    "TokenizerConfig",
    "grid",
    "merged",
    "parse_budget",
]
