"""Quantize a language model to FP4, prove the result right, and publish it on the Hugging Face Hub."""

__version__ = "0.1.0"
