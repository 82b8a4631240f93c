"""Real trainings, small enough that thousands can be afforded: 10 to 100 milliseconds most of them, on one thread.

Every truth is minus a loss on rows that the training has not seen, with seeds that never change: the same params give
the same value on the same machine and versions. A loss is cut at a value that is clearly bad, as a training that
diverges has any. Needs scikit-learn; torch-digits (network.py) needs torch.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.search import network
from benchmarks.search.problem import Params, Problem
from hpopt.core.search_space import SearchSpace

Data = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64] | npt.NDArray[np.float64]]

FOLDS = 2
LEAST_PROBABILITY = 1e-3  # of the right class: a model that is certain and wrong loses a lot, not everything
MOST = 3.0  # no loss is larger; guessing loses 0.7 to 2.3

FOREST = {
    "trees": SearchSpace("qloguniform", [2, 16, 1]),
    "max_depth": SearchSpace("quniform", [1, 14, 1]),
    "max_features": SearchSpace("uniform", [0.03, 1.0]),
    "min_samples_leaf": SearchSpace("qloguniform", [1, 64, 1]),
    "min_impurity_decrease": SearchSpace("loguniform", [1e-5, 0.1]),
    "criterion": SearchSpace("choice", ["gini", "entropy"]),
    "resample": SearchSpace("choice", [True, False]),
}
WINE = {
    "learning_rate": SearchSpace("loguniform", [1e-4, 1.0]),
    "batch": SearchSpace("qloguniform", [16, 96, 8]),
    "hidden": SearchSpace("qloguniform", [2, 64, 1]),
    "alpha": SearchSpace("loguniform", [1e-5, 10.0]),
    "momentum": SearchSpace("uniform", [0.0, 0.99]),
    "solver": SearchSpace("choice", ["sgd", "adam"]),
    "activation": SearchSpace("choice", ["relu", "tanh", "logistic"]),
}
BOOSTING = {
    "learning_rate": SearchSpace("loguniform", [0.01, 1.0]),
    "rounds": SearchSpace("qloguniform", [4, 16, 1]),
    "max_leaves": SearchSpace("qloguniform", [2, 16, 1]),
    "min_samples_leaf": SearchSpace("qloguniform", [1, 100, 1]),
    "l2": SearchSpace("loguniform", [1e-4, 100.0]),
    "max_features": SearchSpace("uniform", [0.05, 1.0]),
}
SVM = {
    "C": SearchSpace("loguniform", [1e-3, 1e3]),
    "gamma": SearchSpace("loguniform", [1e-4, 10.0]),
    "kernel": SearchSpace("choice", ["rbf", "poly", "sigmoid", "linear"]),
    "degree": SearchSpace("quniform", [2, 5, 1]),
    "coef0": SearchSpace("uniform", [-1.0, 1.0]),
    "components": SearchSpace("qloguniform", [2, 48, 1]),
    "whiten": SearchSpace("choice", [True, False]),
}
LINEAR = {
    "learning_rate": SearchSpace("loguniform", [1e-4, 10.0]),
    "alpha": SearchSpace("loguniform", [1e-7, 0.1]),
    "epochs": SearchSpace("quniform", [2, 20, 1]),
    "decay": SearchSpace("uniform", [0.0, 1.0]),
    "pixels": SearchSpace("choice", ["raw", "standard", "normal", "edges"]),
    "loss": SearchSpace("choice", ["log_loss", "modified_huber"]),
    "penalty": SearchSpace("choice", ["l1", "l2"]),
    "average": SearchSpace("choice", [True, False]),
}
DIABETES = {
    "learning_rate": SearchSpace("loguniform", [0.01, 1.0]),
    "rounds": SearchSpace("qloguniform", [4, 32, 1]),
    "max_depth": SearchSpace("quniform", [1, 8, 1]),
    "min_samples_leaf": SearchSpace("qloguniform", [1, 64, 1]),
    "subsample": SearchSpace("uniform", [0.2, 1.0]),
    "max_features": SearchSpace("uniform", [0.1, 1.0]),
    "loss": SearchSpace("choice", ["squared_error", "absolute_error", "huber"]),
}


def trainings() -> list[Problem]:
    """All of them; nothing is loaded yet."""
    return [
        Problem("forest-cancer", "tune", FOREST, forest_cancer),
        Problem("mlp-wine", "tune", WINE, mlp_wine),
        Problem("boosting-digits", "seen", BOOSTING, boosting_digits),
        Problem("svm-digits", "seen", SVM, svm_digits),
        Problem("torch-digits", "seen", network.SPACE, network.torch_digits),
        Problem("linear-digits", "report", LINEAR, linear_digits),
        Problem("boosting-diabetes", "report", DIABETES, boosting_diabetes),
    ]


def forest_cancer(params: Params) -> float:
    """A random forest that tells benign from malignant tumours: minus the cross-validated log-loss."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(
        params["trees"],
        criterion=params["criterion"],
        max_depth=params["max_depth"],
        min_samples_leaf=params["min_samples_leaf"],
        max_features=params["max_features"],
        min_impurity_decrease=params["min_impurity_decrease"],
        bootstrap=params["resample"],
        random_state=0,
    )
    return -_cross_validated(_log_loss, model, _cancer())


def mlp_wine(params: Params) -> float:
    """A network with one hidden layer and 20 epochs, for three kinds of wine: minus the cross-validated log-loss."""
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        (params["hidden"],),
        activation=params["activation"],
        solver=params["solver"],
        alpha=params["alpha"],
        batch_size=params["batch"],
        learning_rate_init=params["learning_rate"],
        momentum=params["momentum"],
        max_iter=20,
        random_state=0,
    )
    return -_cross_validated(_log_loss, model, _wine())


def boosting_digits(params: Params) -> float:
    """Gradient boosting that tells a 3 from an 8 and a 9: minus the cross-validated log-loss."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        learning_rate=params["learning_rate"],
        max_iter=params["rounds"],
        max_leaf_nodes=params["max_leaves"],
        min_samples_leaf=params["min_samples_leaf"],
        l2_regularization=params["l2"],
        max_features=params["max_features"],
        early_stopping=False,
        random_state=0,
    )
    return -_cross_validated(_log_loss, model, _digits(3, 8, 9))


def svm_digits(params: Params) -> float:
    """A support vector machine on principal components, for odd or even digits: minus the squared hinge loss.

    `gamma` is relative to the number of components; linear takes no notice of it, and only poly of `degree`.
    """
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    machine = SVC(
        C=params["C"],
        kernel=params["kernel"],
        degree=params["degree"],
        gamma=params["gamma"] / params["components"],
        coef0=params["coef0"],
        max_iter=2000,
    )
    reduce = PCA(params["components"], whiten=params["whiten"], svd_solver="full")
    return -_cross_validated(_squared_hinge, make_pipeline(reduce, machine), _parity())


def linear_digits(params: Params) -> float:
    """A linear model, trained by stochastic gradient descent, for ten digits: minus the cross-validated log-loss.

    The learning rate falls with the steps to the power of minus `decay`.
    """
    from sklearn.linear_model import SGDClassifier

    model = SGDClassifier(
        loss=params["loss"],
        penalty=params["penalty"],
        alpha=params["alpha"],
        max_iter=params["epochs"],
        tol=None,
        learning_rate="invscaling",
        eta0=params["learning_rate"],
        power_t=params["decay"],
        average=params["average"],
        random_state=0,
    )
    return -_cross_validated(_log_loss, model, _pixels(params["pixels"]))


def boosting_diabetes(params: Params) -> float:
    """Gradient boosting that predicts how diabetes goes on: minus the squared error in units of the variance."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        loss=params["loss"],
        learning_rate=params["learning_rate"],
        n_estimators=params["rounds"],
        max_depth=params["max_depth"],
        min_samples_leaf=params["min_samples_leaf"],
        subsample=params["subsample"],
        max_features=params["max_features"],
        random_state=0,
    )
    return -_cross_validated(_squared_error, model, _diabetes())


def _cross_validated(loss: Callable[[Any, Data], float], model: Any, data: Data) -> float:
    """The mean loss of the model over the folds; it is trained anew for each."""
    X, y = data
    losses = []
    with _quiet():
        for held_out in _folds(len(y)):
            try:
                model.fit(X[~held_out], y[~held_out])
                losses.append(loss(model, (X[held_out], y[held_out])))
            except ValueError:  # weights that are no longer finite
                losses.append(MOST)
    return min(float(np.mean(losses)), MOST)


def _log_loss(model: Any, data: Data) -> float:
    X, y = data
    right = model.predict_proba(X)[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return float(-np.log(np.clip(right, LEAST_PROBABILITY, 1.0)).mean())


def _squared_hinge(model: Any, data: Data) -> float:
    X, y = data
    margins = model.decision_function(X) * (2 * y - 1)
    return float((np.maximum(0.0, 1.0 - margins) ** 2).mean())


def _squared_error(model: Any, data: Data) -> float:
    X, y = data
    return float(((model.predict(X) - y) ** 2).mean())


def _folds(rows: int) -> Iterator[npt.NDArray[np.bool_]]:
    """Which rows are held out, fold by fold; the same every time."""
    fold = np.random.RandomState(0).permutation(rows) % FOLDS
    return (fold == i for i in range(FOLDS))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """One thread, and no warnings: that a bad configuration does not converge is what its loss says."""
    with _threads().limit(limits=1), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


@cache
def _threads() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@cache
def _cancer() -> Data:
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    return X, y


@cache
def _wine() -> Data:
    from sklearn.datasets import load_wine

    X, y = load_wine(return_X_y=True)
    return (X - X.mean(axis=0)) / X.std(axis=0), y


@cache
def _digits(*classes: int) -> Data:
    """The images of these digits, pixels in [0, 1]; the first 600 of them."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    chosen = np.flatnonzero(np.isin(y, classes))[:600]
    return X[chosen] / 16, y[chosen]


@cache
def _pixels(how: str) -> Data:
    """600 images of all digits, as they are, with standardized pixels, as vectors of length 1, or differences."""
    X, y = _digits(*range(10))
    if how == "standard":
        return (X - X.mean(axis=0)) / np.maximum(X.std(axis=0), 0.05), y
    if how == "normal":
        return X / np.linalg.norm(X, axis=1, keepdims=True), y
    return (np.diff(X, axis=1), y) if how == "edges" else (X, y)


@cache
def _diabetes() -> Data:
    """442 patients; what is predicted has mean 0 and variance 1."""
    from sklearn.datasets import load_diabetes

    X, y = load_diabetes(return_X_y=True)
    return X, (y - y.mean()) / y.std()


@cache
def _parity() -> Data:
    X, y = _digits(*range(10))
    return X, y % 2
