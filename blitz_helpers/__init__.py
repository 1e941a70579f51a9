"""See what happens inside a neural network: its shapes, gradients, autograd graph and updates.

Every public name is found here and loaded from its module when it is first used, so that
matplotlib, wandb and the rest cost nothing until something is drawn or tracked.
"""

from importlib import import_module

# Loaded here, so that its second falls on the import and not on the first call.
import torch as _torch  # noqa: F401

__version__ = "0.1.0"

_MODULE_OF = {
    name: module
    for module, names in {
        "data": ["load_mnist"],
        "gradients": [
            "GradientReport",
            "GradientRow",
            "gradient_report",
            "numerical_gradient",
            "random_backward",
        ],
        "graph": [
            "AutogradGraph",
            "GraphEdge",
            "GraphNode",
            "NamedTensor",
            "SavedTensor",
            "autograd_graph",
            "label_modules",
        ],
        "network": ["Network"],
        "plotting._canvas": ["Picture", "show"],
        "plotting.digits": ["plot_digits", "plot_scores"],
        "plotting.gradients": ["plot_gradient_report"],
        "plotting.graph": ["graph_svg", "plot_graph"],
        "plotting.network": ["plot_network"],
        "plotting.training": ["plot_confusion", "plot_filters", "plot_losses"],
        "plotting.updates": ["plot_descent", "plot_foretold_losses"],
        "plotting.windows": ["plot_receptive_field", "plot_window"],
        "shapes": [
            "conv_arithmetic",
            "conv_fitting_sizes",
            "conv_output_size",
            "conv_transpose_arithmetic",
            "conv_transpose_output_size",
            "pool_arithmetic",
            "pool_fitting_sizes",
            "pool_output_size",
        ],
        "trace": ["ShapeError", "ShapeStep", "ShapeTrace", "trace_shapes"],
        "tracking": ["read_run", "start_run"],
        "training": ["DivergenceError", "Evaluation", "History", "evaluate", "fit"],
        "updates": ["adam_step", "adamw_step", "momentum_step", "sgd_step"],
    }.items()
    for name in names
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
