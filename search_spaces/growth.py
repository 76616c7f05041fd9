"""What every method chooses about new classes: their first weights, and which class channels an image trains."""

from __future__ import annotations

from search_spaces.distributions import Choice

NEW_ROW_INIT = Choice(("focal_prior", "torch_default", "mean_old"))
LOSS_SCOPE = Choice(("full", "labelled"))
"""full: all classes, old ones as negatives; labelled: those whose boxes the image carries."""
