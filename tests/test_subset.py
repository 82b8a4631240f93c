import json
import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpopt.config import Identity, build_config
from hpopt.core.budget import plan
from hpopt.core.messages import Sample
from hpopt.core.plan import Plan
from hpopt.core.schedule import Schedule
from hpopt.core.subset import class_sizes, subset_size
from hpopt.dataset import createHpoDataset
from tests.conftest import Create
from tests.studies import sample
from tests.test_budget import make_spec

RATIOS = st.floats(0, 1, exclude_min=True) | st.integers(1, 100).map(lambda percent: percent / 100)
COUNTS = st.dictionaries(st.integers(0, 30), st.integers(1, 200), min_size=1)


def promised(total: int, ratio: float) -> int:
    """What the reference says: the ratio of the dataset, but no less than 500 samples, and no more than there are."""
    exact = Fraction(ratio).limit_denominator(10**12) * total
    return total if ratio >= 1 else max(math.floor(exact), min(total, 500))


def length(total: int, config: dict[str, object]) -> int:
    """Samples of a subset of so many, from a config that has been through JSON."""
    return len(createHpoDataset(range(total), json.loads(json.dumps(config))))


@given(
    total=st.integers(1, 20_000), ratio=st.floats(1e-6, 1.5) | st.integers(1, 100).map(lambda percent: percent / 100)
)
@example(total=531, ratio=0.2)  # 500 / 531 * 531 is 499.99999999999994
@example(total=100_000, ratio=0.29)  # 0.29 * 100_000 is 28999.999999999996
@example(total=500, ratio=0.2)
@example(total=501, ratio=0.2)
def test_subset_of_a_study_has_what_its_arguments_promise(total: int, ratio: float) -> None:
    """From arguments through plan, config and JSON: the dataset has as many samples as promised, and as shown."""
    spec, _ = plan(make_spec(full_dataset_size=total, subset_ratio=ratio))
    config = build_config(spec, Identity("n", "s", "u", 0, 1, None), Sample(0, 0, 1, 0, {"x1": 1.0}))
    del config["hpopt"]  # there is no study to tell of the start
    expected = promised(total, ratio)
    assert length(total, config) == expected
    assert Plan.of(spec, Schedule()).samples == expected


@pytest.mark.parametrize(
    ("total", "ratio"),
    [(400, 0.2), (500, 0.5), (501, 0.001), (531, 0.2), (999, 0.999), (2500, 0.2), (2600, 0.2), (60_000, 0.29)],
)
def test_subset_through_a_server(create: Create, total: int, ratio: float) -> None:
    """The config that a server hands out makes the promised subset."""
    hpo = create(full_dataset_size=total, subset_ratio=ratio)
    assert length(total, dict(sample(hpo))) == promised(total, ratio) == hpo.plan.samples


def test_derived_ratio_through_a_server(create: Create) -> None:
    """A ratio that hpopt derives makes the subset that the plan shows."""
    hpo = create(full_dataset_size=7001, subset_ratio=None, num_trials=None, max_iterations=None)
    assert 1400 <= hpo.plan.samples < 7001
    assert length(7001, dict(sample(hpo))) == hpo.plan.samples


@given(total=st.integers(0, 10**9), ratio=RATIOS)
def test_size_is_within_the_dataset(total: int, ratio: float) -> None:
    """A subset is no larger than the dataset, and empty only if the dataset is."""
    assert min(total, 1) <= subset_size(total, ratio) <= total


@given(counts=COUNTS, ratio=RATIOS)
@example(counts={0: 97, 1: 1, 2: 1, 3: 1}, ratio=0.04)  # as many samples as classes
@example(counts={0: 50, 1: 50, 2: 1}, ratio=0.02)  # fewer
@example(counts={0: 3, 1: 3, 2: 3}, ratio=0.5)  # equal remainders
def test_classes_keep_their_shares(counts: dict[int, int], ratio: float) -> None:
    """The sizes add up, none is above its class, none is 0 where that can be, and none is far from its share."""
    total = sum(counts.values())
    size = subset_size(total, ratio)
    sizes = class_sizes(counts, size)
    assert (sum(sizes.values()), list(sizes)) == (size, list(counts))
    assert all(0 <= sizes[name] <= count for name, count in counts.items())
    if size >= len(counts):
        assert min(sizes.values()) >= 1
    shares = {name: size * count / total for name, count in counts.items()}
    rare = sum(share < 1 for share in shares.values()) if size >= len(counts) else 0
    for name, share in shares.items():
        assert share - rare - 1 < sizes[name] < max(share, 1) + 1
    assert all(sizes[a] <= sizes[b] + 1 for a in counts for b in counts if counts[a] <= counts[b])


def test_classes_by_hand() -> None:
    """10 of 100 samples: 96 % get 8.64 of the 9 samples that the rarest class leaves, 3 % 0.28 of them, that is, 1."""
    assert class_sizes(Counter({"a": 96, "b": 3, "c": 1}), 10) == {"a": 8, "b": 1, "c": 1}
    assert class_sizes(Counter({"a": 55, "b": 25, "c": 20}), 10) == {"a": 6, "b": 2, "c": 2}  # 5.5, 2.5, 2: ties
