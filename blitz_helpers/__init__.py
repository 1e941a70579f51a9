"""See what happens inside a neural network: its shapes, gradients, autograd graph and updates.

Every public name is available here, and its module is loaded on first use, so that matplotlib,
wandb and the rest cost nothing until something is drawn or tracked.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers; at run time, `__getattr__` loads the names
    from blitz_helpers.data import (
        load_mnist as load_mnist,
    )
    from blitz_helpers.explorers import (
        Explorer as Explorer,
    )
    from blitz_helpers.explorers.digit import (
        DigitState as DigitState,
        explore_digit as explore_digit,
    )
    from blitz_helpers.explorers.window import (
        WindowState as WindowState,
        explore_window as explore_window,
    )
    from blitz_helpers.gradients import (
        GradientReport as GradientReport,
        GradientRow as GradientRow,
        gradient_report as gradient_report,
        numerical_gradient as numerical_gradient,
        random_backward as random_backward,
    )
    from blitz_helpers.graph import (
        AutogradGraph as AutogradGraph,
        FoldedGraph as FoldedGraph,
        GraphEdge as GraphEdge,
        GraphNode as GraphNode,
        NamedTensor as NamedTensor,
        SavedTensor as SavedTensor,
        autograd_graph as autograd_graph,
        label_modules as label_modules,
    )
    from blitz_helpers.network import (
        Network as Network,
    )
    from blitz_helpers.notebook import (
        short_errors as short_errors,
    )
    from blitz_helpers.plotting import (
        Picture as Picture,
        show as show,
    )
    from blitz_helpers.plotting.digits import (
        plot_digits as plot_digits,
        plot_scores as plot_scores,
    )
    from blitz_helpers.plotting.gradients import (
        plot_gradient_report as plot_gradient_report,
        plot_image_gradient as plot_image_gradient,
    )
    from blitz_helpers.plotting.graph import (
        graph_svg as graph_svg,
        plot_graph as plot_graph,
    )
    from blitz_helpers.plotting.histograms import (
        plot_histograms as plot_histograms,
    )
    from blitz_helpers.plotting.maps import (
        plot_feature_map as plot_feature_map,
        plot_filters as plot_filters,
        plot_receptive_field as plot_receptive_field,
    )
    from blitz_helpers.plotting.network import (
        plot_network as plot_network,
    )
    from blitz_helpers.plotting.ranks import (
        plot_ranks as plot_ranks,
    )
    from blitz_helpers.plotting.training import (
        plot_confusion as plot_confusion,
        plot_history as plot_history,
        plot_losses as plot_losses,
        plot_lr_sweep as plot_lr_sweep,
    )
    from blitz_helpers.plotting.updates import (
        plot_descent as plot_descent,
        plot_descent_losses as plot_descent_losses,
        plot_foretold_losses as plot_foretold_losses,
    )
    from blitz_helpers.plotting.windows import (
        plot_transposed_window as plot_transposed_window,
        plot_window as plot_window,
    )
    from blitz_helpers.shapes import (
        conv_arithmetic as conv_arithmetic,
        conv_fitting_sizes as conv_fitting_sizes,
        conv_output_size as conv_output_size,
        conv_transpose_arithmetic as conv_transpose_arithmetic,
        conv_transpose_output_size as conv_transpose_output_size,
        pool_arithmetic as pool_arithmetic,
        pool_fitting_sizes as pool_fitting_sizes,
        pool_output_size as pool_output_size,
    )
    from blitz_helpers.trace import (
        ShapeError as ShapeError,
        ShapeStep as ShapeStep,
        ShapeTrace as ShapeTrace,
        trace_shapes as trace_shapes,
    )
    from blitz_helpers.trace.calls import (
        ModuleCall as ModuleCall,
        ModuleTable as ModuleTable,
    )
    from blitz_helpers.trace.remedies import (
        Remedy as Remedy,
    )
    from blitz_helpers.tracking import (
        LoggedRun as LoggedRun,
        read_run as read_run,
        start_run as start_run,
    )
    from blitz_helpers.training import (
        DivergenceError as DivergenceError,
        Evaluation as Evaluation,
        History as History,
        evaluate as evaluate,
        fit as fit,
    )
    from blitz_helpers.updates import (
        adam_step as adam_step,
        adamw_step as adamw_step,
        momentum_step as momentum_step,
        sgd_step as sgd_step,
    )

__version__ = "0.1.0"

import_module("torch")  # it takes a second: in the import, not in the first call

_MODULE_OF = {
    name: module
    for module, names in {
        "data": ["load_mnist"],
        "explorers": ["Explorer"],
        "explorers.digit": ["DigitState", "explore_digit"],
        "explorers.window": ["WindowState", "explore_window"],
        "gradients": [
            "GradientReport",
            "GradientRow",
            "gradient_report",
            "numerical_gradient",
            "random_backward",
        ],
        "graph": [
            "AutogradGraph",
            "FoldedGraph",
            "GraphEdge",
            "GraphNode",
            "NamedTensor",
            "SavedTensor",
            "autograd_graph",
            "label_modules",
        ],
        "network": ["Network"],
        "notebook": ["short_errors"],
        "plotting": ["Picture", "show"],
        "plotting.digits": ["plot_digits", "plot_scores"],
        "plotting.gradients": ["plot_gradient_report", "plot_image_gradient"],
        "plotting.graph": ["graph_svg", "plot_graph"],
        "plotting.histograms": ["plot_histograms"],
        "plotting.maps": ["plot_feature_map", "plot_filters", "plot_receptive_field"],
        "plotting.network": ["plot_network"],
        "plotting.ranks": ["plot_ranks"],
        "plotting.training": ["plot_confusion", "plot_history", "plot_losses", "plot_lr_sweep"],
        "plotting.updates": ["plot_descent", "plot_descent_losses", "plot_foretold_losses"],
        "plotting.windows": ["plot_transposed_window", "plot_window"],
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
        "trace.calls": ["ModuleCall", "ModuleTable"],
        "trace.remedies": ["Remedy"],
        "tracking": ["LoggedRun", "read_run", "start_run"],
        "training": ["DivergenceError", "Evaluation", "History", "evaluate", "fit"],
        "updates": ["adam_step", "adamw_step", "momentum_step", "sgd_step"],
    }.items()
    for name in names
}

__all__ = sorted(_MODULE_OF)


def _load(name: str) -> Any:
    """Return a public name, loaded from its module."""
    if name not in _MODULE_OF:
        from difflib import get_close_matches

        near = get_close_matches(name, _MODULE_OF, n=1)
        advice = f". Did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{advice}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


if not TYPE_CHECKING:  # hidden, so that type checkers notice misspelt names
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
