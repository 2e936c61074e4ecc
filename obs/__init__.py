"""Stock Observer: records what several markets show, and keeps the evidence of everything it could not record."""

__version__ = "0.1.0"
