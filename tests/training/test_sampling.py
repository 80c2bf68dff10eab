import numpy as np
import pytest

from pipeops.training.sampling import EpochSampler


def sampler(*, rows=1003, grouped=True, seed=3, epoch=0, batch_size=8):
    lengths = np.random.default_rng(0).integers(3, 60, rows).tolist()
    one = EpochSampler(lengths, batch_size=batch_size, grouped=grouped, seed=seed)
    one.set_epoch(epoch)
    return one


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 8, 9, 64, 1003])
def test_every_index_once(grouped, rows):
    one = sampler(rows=rows, grouped=grouped)
    assert sorted(one) == list(range(rows))
    assert len(one) == rows


@pytest.mark.parametrize("grouped", [False, True])
def test_the_order_depends_on_seed_and_epoch_only(grouped):
    same = [list(sampler(grouped=grouped, epoch=4)) for _ in range(2)]
    assert same[0] == same[1]
    assert same[0] != list(sampler(grouped=grouped, epoch=5))
    assert same[0] != list(sampler(grouped=grouped, seed=9, epoch=4))


def padding(one):
    order, size = list(one), one.batch_size
    batches = [[one.lengths[i] for i in order[start : start + size]] for start in range(0, len(order), size)]
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)


def test_grouping_saves_most_of_the_padding():
    assert padding(sampler(grouped=True)) < 0.2 * padding(sampler(grouped=False))


def test_grouped_batches_show_no_trend_in_length():
    one = sampler(rows=4000)
    means = np.array([one.lengths[i] for i in one]).reshape(-1, 8).mean(axis=1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.15
