"""Trimtab: RLHF on one machine, from demonstrations and human preferences to an aligned, evaluated chat model."""

__version__ = "0.1.0"
