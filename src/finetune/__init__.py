"""Decisions you can stake something on, from an LLM you tuned yourself."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("finetune-decisions")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0+source"
