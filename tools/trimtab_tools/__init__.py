"""For operators and engine developers: command line, simulator, conformance kit, histories."""

__version__ = "0.1.0"
