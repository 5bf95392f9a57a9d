"""The measuring instrument of a data set: training images, tokenizers, conditions and judges, with their hashes."""

from bench.instrument.base import Instrument, open_instrument

__all__ = ["Instrument", "open_instrument"]
