"""Do 95 % intervals hold the truth 95 times in a hundred, and are p-values as rare as they say? Seeded simulations.

`pytest -m slow -s tests/test_coverage.py` prints the figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from evalops.stats import agreement, contrast, intervals, resample

pytestmark = pytest.mark.slow

SIMULATIONS = 1_000
RATES = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
SIZES = (100, 150, 250, 400)

Chance = np.random.Generator
Case = Callable[[Chance, float, int], tuple[tuple[float | None, float | None] | None, float]]


def scores(chance: Chance, rate: float, shape: int | tuple[int, ...]) -> np.ndarray:
    """Scores from 1 to 5, the skew given by a rate: 1 and four coins."""
    return 1.0 + chance.binomial(4, rate, shape)


def wilson(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval, float]:
    return intervals.wilson(int(chance.binomial(n, rate)), n), rate


def student(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval, float]:
    values = scores(chance, rate, n)
    return intervals.student(float(values.mean()), float(values.std(ddof=1)), n), 1 + 4 * rate


def median(chance: Chance, rate: float, n: int) -> tuple[tuple[float | None, float | None], float]:
    found = intervals.median(Counter(chance.gamma(1 / rate, size=n).tolist()))
    from scipy.special import gammaincinv

    return (found.low, found.high), float(gammaincinv(1 / rate, 0.5))


def clusters_of(chance: Chance, rate: float, n: int) -> list[np.ndarray]:
    """30 to 100 clusters of 1 to 7 rows, rates spread around `rate` with an intracluster correlation of 0.2."""
    count = max(30, n // 4)
    own = chance.beta(rate * 4, (1 - rate) * 4, count)
    return [chance.random(size) < each for each, size in zip(own, chance.integers(1, 8, count), strict=True)]


def clustered(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval | None, float]:
    # Scores that share half of their variance within a cluster.
    found = []
    for passes in clusters_of(chance, rate, n):
        values = 3 * passes + chance.gamma(2.0) + chance.normal(size=len(passes))
        found.append(intervals.Cluster(len(values), float(values.sum())))
    return intervals.clustered(found), 3 * rate + 2


def clustered_rate(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval | None, float]:
    rows = clusters_of(chance, rate, n)
    return intervals.clustered_rate([intervals.Cluster(len(each), int(each.sum())) for each in rows]), rate


def clustered_points(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval | None, float]:
    """Wins, and ties at half a point."""
    rows = clusters_of(chance, rate, n)
    points = [(each * 1.0 + (chance.random(len(each)) < rate)) / 2 for each in rows]
    return intervals.clustered_rate([intervals.Cluster(len(each), float(each.sum())) for each in points]), rate


def newcombe(new: int, n: int, old: int, size: int) -> intervals.Interval:
    """Of two rates, from their Wilson intervals: the hybrid score interval."""
    return contrast.difference(
        contrast.Estimate(new / n, *intervals.wilson(new, n)),
        contrast.Estimate(old / size, *intervals.wilson(old, size)),
    )


def difference_of_rates(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval, float]:
    other, size = RATES[int(chance.integers(len(RATES)))], int(chance.choice(SIZES))
    return newcombe(int(chance.binomial(n, rate)), n, int(chance.binomial(size, other)), size), rate - other


def difference_of_means(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval, float]:
    other, size = RATES[int(chance.integers(len(RATES)))], int(chance.choice(SIZES))
    drawn = scores(chance, rate, n), scores(chance, other, size)
    samples = [(float(each.mean()), float(each.std(ddof=1)), len(each)) for each in drawn]
    new, old = (contrast.Estimate(each[0], *intervals.student(*each)) for each in samples)
    return contrast.difference(new, old), 4 * (rate - other)


def paired_labels(chance: Chance, rate: float, n: int, change: float) -> tuple[intervals.Interval, float]:
    """Rows of which the share `change` is judged anew, with a chance of their own."""
    later = min(0.95, rate + 0.1)
    before = chance.random(n) < rate
    after = np.where(chance.random(n) < change, chance.random(n) < later, before)
    lost, gained = int(np.sum(before & ~after)), int(np.sum(after & ~before))
    return contrast.paired_rates(lost, gained, n), change * (later - rate)


def paired_rates(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval, float]:
    return paired_labels(chance, rate, n, 0.4)


def paired_rates_with_few_changes(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval, float]:
    return paired_labels(chance, rate, n, 0.15)


def paired_mean(chance: Chance, rate: float, n: int, change: float = 0.5) -> tuple[intervals.Interval | None, float]:
    before = scores(chance, rate, n)
    after = np.where(chance.random(n) < change, scores(chance, 0.5, n), before)
    found = resample.paired_mean(Counter((after - before).tolist()))
    return found.interval, change * 4 * (0.5 - rate)


def paired_mean_with_few_changes(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval | None, float]:
    return paired_mean(chance, rate, n, 0.2)


def paired_mean_of_real_numbers(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval | None, float]:
    skewed = chance.exponential(size=n) - rate
    return resample.paired_mean(Counter(skewed.tolist())).interval, 1 - rate


def paired_points(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval | None, float]:
    before, after = chance.binomial(2, rate, n) / 2, chance.binomial(2, 0.5, n) / 2
    return resample.paired_mean(Counter((after - before).tolist())).interval, 0.5 - rate


def judged(chance: Chance, rate: float, n: int, known: float) -> tuple[intervals.Interval | None, float]:
    """A judge that knows the answer in so many of the rows and guesses at the same rate in the rest."""
    gold = chance.random(n) < rate
    judge = np.where(chance.random(n) < known, gold, chance.random(n) < rate)
    table = Counter(zip(gold.tolist(), judge.tolist(), strict=True))
    found = intervals.kappa([[table[a, b] for b in (False, True)] for a in (False, True)])
    return found and found.interval, known


def kappa(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval | None, float]:
    return judged(chance, rate, n, 0.6)


def kappa_of_a_good_judge(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval | None, float]:
    return judged(chance, rate, n, 0.85)


def related(chance: Chance, rate: float, n: int) -> tuple[np.ndarray, np.ndarray]:
    x = chance.normal(size=n)
    return x, rate * x + math.sqrt(1 - rate**2) * chance.normal(size=n)


def pearson(chance: Chance, rate: float, n: int) -> tuple[intervals.Interval | None, float]:
    x, y = related(chance, rate, n)
    return intervals.fisher(float(np.corrcoef(x, y)[0, 1]), n), rate


def spearman(chance: Chance, rate: float, n: int) -> tuple[tuple[float | None, float | None], float]:
    x, y = related(chance, rate, n)
    found = intervals.spearman(np.exp(x).tolist(), y.tolist())
    return (found.low, found.high), 6 / math.pi * math.asin(rate / 2)


def corrected_rate(chance: Chance, rate: float, n: int) -> tuple[tuple[float | None, float | None], float]:
    """A judge with sensitivity 0.85 and specificity 0.75, known from 100 gold rows of each kind."""
    sensitivity, specificity, gold = 0.85, 0.75, 100
    found, spared = int(chance.binomial(gold, sensitivity)), int(chance.binomial(gold, specificity))
    passed = int(chance.binomial(n, rate * sensitivity + (1 - rate) * (1 - specificity)))
    metric = intervals.corrected_rate(passed, n, intervals.Calibration(found, gold - found, spared, gold - spared))
    return (metric.low, metric.high), rate


def alpha_of_labels(chance: Chance, rate: float, n: int) -> tuple[tuple[float | None, float | None], float]:
    """Three judges who each know the answer in 80 % of the rows and guess in the rest: any two agree by 0.64."""
    truth = chance.random((n, 1)) < rate
    judged = np.where(chance.random((n, 3)) < 0.8, truth, chance.random((n, 3)) < rate)
    found = agreement.alpha_of_labels(Counter(tuple(map(str, row)) for row in judged.tolist()))
    return (found.low, found.high), 0.64


def alpha_of_scores(chance: Chance, rate: float, n: int) -> tuple[tuple[float | None, float | None], float]:
    """Three judges whose scores are a row's own and an error: alpha is the share of the row's variance."""
    own = scores(chance, rate, (n, 1))
    variance = 4 * rate * (1 - rate)
    judged = own + chance.normal(scale=math.sqrt(variance / 2), size=(n, 3))
    found = agreement.alpha_of_scores(Counter(tuple(row) for row in judged.tolist()))
    return (found.low, found.high), 2 / 3


def flip_rate(chance: Chance, rate: float, n: int) -> tuple[tuple[float | None, float | None], float]:
    """Two repeats that differ at `rate`."""
    found = agreement.flip_rate(Counter(("a", "b") if flips else ("a", "a") for flips in chance.random(n) < rate))
    return (found.low, found.high), rate


INTERVALS: tuple[Case, ...] = (
    wilson, student, median, clustered, clustered_rate, clustered_points, difference_of_rates, difference_of_means,
    paired_rates, paired_rates_with_few_changes, paired_mean, paired_mean_with_few_changes, paired_mean_of_real_numbers, paired_points,
    kappa, kappa_of_a_good_judge, pearson, spearman, corrected_rate, alpha_of_labels, alpha_of_scores, flip_rate,
)  # fmt: skip


def designs(chance: Chance) -> Iterator[tuple[float, int]]:
    """Every rate with every size in turn."""
    for number in range(SIMULATIONS):
        yield RATES[number % len(RATES)], SIZES[number // len(RATES) % len(SIZES)]


@pytest.mark.parametrize("case", INTERVALS, ids=lambda case: case.__name__)
def test_an_interval_holds_the_truth_95_times_in_a_hundred(case: Case) -> None:
    chance = np.random.default_rng(20_240_229)
    below = above = width = 0.0
    for rate, n in designs(chance):
        interval, truth = case(chance, rate, n)
        assert interval is not None and interval[0] is not None and interval[1] is not None
        below += truth < interval[0]
        above += truth > interval[1]
        width += interval[1] - interval[0]
    held = SIMULATIONS - below - above
    print(
        f"\n{case.__name__:38} {held / SIMULATIONS:7.1%}   truth below {below:3.0f}, above {above:3.0f}   mean width {width / SIMULATIONS:.3f}"
    )
    assert 0.93 <= held / SIMULATIONS <= 0.97


# --- p-values where there is no difference ---


def fair_coin(chance: Chance, n: int) -> float:
    return intervals.binomial_p(int(chance.binomial(n, 0.5)), n)


def mcnemar(chance: Chance, n: int) -> float:
    changed = int(chance.binomial(n, 0.2))
    lost = int(chance.binomial(changed, 0.5))
    return contrast.mcnemar(lost, changed - lost)


def p_of_mean(differences: np.ndarray) -> float:
    return resample.paired_mean(Counter(differences.tolist())).p


def scores_that_moved(chance: Chance, n: int) -> float:
    return p_of_mean(scores(chance, 0.7, n) - scores(chance, 0.7, n))


def few_scores_that_moved(chance: Chance, n: int) -> float:
    return p_of_mean(np.where(chance.random(n) < 0.05, chance.choice([-2.0, -1.0, 1.0, 2.0], n), 0.0))


def skewed_differences(chance: Chance, n: int) -> float:
    """Their mean is 0, though they are not symmetric about it."""
    return p_of_mean(chance.exponential(size=n) - 1)


def points_of_games(chance: Chance, n: int) -> float:
    return p_of_mean((chance.binomial(2, 0.4, n) - chance.binomial(2, 0.4, n)) / 2)


def the_least_of_ten_by_holm(chance: Chance, n: int) -> float:
    return min(intervals.holm([mcnemar(chance, n) for _ in range(10)]))


@pytest.mark.parametrize(
    "case",
    [
        fair_coin,
        mcnemar,
        scores_that_moved,
        few_scores_that_moved,
        skewed_differences,
        points_of_games,
        the_least_of_ten_by_holm,
    ],
    ids=lambda case: case.__name__,
)
def test_a_p_value_is_as_rare_as_it_says(case: Callable[[Chance, int], float]) -> None:
    chance = np.random.default_rng(20_240_229)
    found = np.array([case(chance, SIZES[number % len(SIZES)]) for number in range(SIMULATIONS)])
    shares = {alpha: float(np.mean(found <= alpha)) for alpha in (0.01, 0.05, 0.1)}
    print(f"\n{case.__name__:38}", *(f"  P(p <= {alpha}) = {share:.3f}" for alpha, share in shares.items()))
    for alpha, share in shares.items():
        assert share <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / SIMULATIONS)


# --- the smallest detectable effect is found four times in five ---


def shown(p_values: list[float]) -> float:
    return float(np.mean(np.array(p_values) <= 0.05))


def test_the_smallest_detectable_effect_is_found_four_times_in_five() -> None:
    chance, n, changed = np.random.default_rng(3), 400, 0.2
    effect = contrast.detectable_paired_rate(n, changed)
    assert effect is not None
    table = chance.multinomial(n, [(changed + effect) / 2, (changed - effect) / 2, 1 - changed], SIMULATIONS)
    paired = shown([contrast.mcnemar(lost, gained) for gained, lost, _ in table.tolist()])
    rate = contrast.detectable_rate(n, 0.8)
    assert rate is not None
    pairs = zip(
        chance.binomial(n, 0.8 - rate, SIMULATIONS).tolist(), chance.binomial(n, 0.8, SIMULATIONS).tolist(), strict=True
    )
    apart = float(np.mean([newcombe(new, n, old, n).high < 0 for new, old in pairs]))
    deviation = contrast.detectable_mean(n, 1.5, paired=True)
    assert deviation is not None
    means = shown([p_of_mean(chance.normal(deviation, 1.5, n)) for _ in range(300)])
    print(
        f"\npower at the smallest detectable effect: McNemar {paired:.2f}, two samples {apart:.2f}, paired mean {means:.2f}"
    )
    # The exact test asks for a little more than the normal approximation says.
    assert 0.72 <= paired <= 0.84 and 0.76 <= apart <= 0.84 and 0.73 <= means <= 0.87
