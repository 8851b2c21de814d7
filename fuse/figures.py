"""Every figure that stage two draws; each in a file of its own, all in the style of `fuse.style`."""

from fuse.confusion_figure import confusion_matrix_figure
from fuse.feature_figures import features_figure, layers_figure
from fuse.robustness_figure import robustness_figure
from fuse.sweep_figure import sweep_figure
from fuse.training_figure import training_curves_figure

__all__ = [
    "confusion_matrix_figure",
    "features_figure",
    "layers_figure",
    "robustness_figure",
    "sweep_figure",
    "training_curves_figure",
]
