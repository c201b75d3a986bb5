"""The order of samples in shards: what a shuffle buffer gives out, from an index alone, for any number of readers."""

import pytest
import torch

from resnet_cli.data.shard_order import ShardOrder, deal_out, shuffle_in_buffer, spread
from resnet_cli.seeding import seeded_generator

SHARDS = torch.arange(8).repeat_interleave(25)


def generator(epoch=0):
    return seeded_generator("cpu", 0, "order", epoch)


@pytest.mark.parametrize(("count", "size"), [(50, 7), (50, 2), (50, 49), (8, 8), (5, 9), (3, 1), (0, 4)])
def test_the_buffer_gives_out_what_a_simulated_one_does(count, size):
    source = generator()
    size_used = min(size, count)
    places = torch.randint(size_used, (count - size_used,), generator=source).tolist() if size_used > 1 else []
    buffer, expected = list(range(size_used)), []
    for step, place in enumerate(places):
        expected.append(buffer[place])
        buffer[place] = size_used + step
    if size_used > 1:
        expected += [buffer[i] for i in torch.randperm(size_used, generator=source).tolist()]
    else:
        expected = list(range(count))
    assert shuffle_in_buffer(torch.arange(count), size, generator()).tolist() == expected


@pytest.mark.parametrize("buffer", [1, 10, 1000])
def test_each_sample_comes_once_in_another_order_in_each_epoch(buffer):
    order = ShardOrder(SHARDS, buffer)
    first, again, second = (order.shuffle(torch.arange(200), generator(epoch)) for epoch in (0, 0, 1))
    assert first.sort().values.equal(torch.arange(200))
    assert first.equal(again)
    assert not first.equal(second)


def test_a_buffer_of_one_reads_shards_from_end_to_end():
    order = ShardOrder(SHARDS, 1).shuffle(torch.arange(200), generator())
    assert (order.view(8, 25).diff() == 1).all()
    assert order[::25].div(25).tolist() != list(range(8))


def test_a_sample_comes_at_most_a_buffer_early():
    place_in_stream = torch.empty(200, dtype=torch.int64)
    place_in_stream[ShardOrder(SHARDS, 1).shuffle(torch.arange(200), generator())] = torch.arange(200)
    order = ShardOrder(SHARDS, 30).shuffle(torch.arange(200), generator())
    early = place_in_stream[order] - torch.arange(200)
    assert 15 < early.max() < 30


def test_samples_drawn_several_times_stay_as_often():
    drawn = torch.randint(200, (300,), generator=generator(5))
    order = ShardOrder(SHARDS, 20).shuffle(drawn, generator())
    assert order.bincount(minlength=200).equal(drawn.bincount(minlength=200))


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("sizes", [[25] * 12, [3, 40, 7, 60, 21, 33, 9, 14, 2, 50, 28, 31]])
def test_each_worker_or_rank_has_shards_of_its_own_until_the_last_ones(sizes, parts):
    shards = torch.arange(12).repeat_interleave(torch.tensor(sizes))
    order = ShardOrder(shards, 20, lanes=4).shuffle(torch.arange(len(shards)), generator(), 10)
    assert order.sort().values.equal(torch.arange(len(shards)))
    batches = [set(shards[batch].tolist()) for batch in order[:160].split(10)]
    own = [set().union(*batches[part::parts]) for part in range(parts)]
    assert sum(map(len, own)) == len(set().union(*own)) > 8


def test_lanes_are_dealt_out_evenly_and_in_another_way_in_each_epoch():
    sizes = torch.tensor([3, 40, 7, 60, 21, 33, 9, 14, 2, 50, 28, 31])
    lanes = deal_out(sizes, 4)
    totals = lanes.bincount(sizes)
    assert totals.max() - totals.min() <= sizes.max()
    order = ShardOrder(torch.arange(12).repeat_interleave(sizes), 5, lanes=4)
    first, second = (order.shuffle(torch.arange(len(order.shards_N)), generator(epoch), 4) for epoch in (0, 1))
    assert {frozenset(order.shards_N[first[:4]].tolist())} != {frozenset(order.shards_N[second[:4]].tolist())}


def test_few_shards_or_a_large_buffer_make_fewer_lanes():
    def shuffle(buffer, lanes, shards=SHARDS):
        return ShardOrder(shards, buffer, lanes).shuffle(torch.arange(200), generator(), 10)

    assert shuffle(20, 8).equal(shuffle(20, 4))  # 8 shards
    assert not shuffle(20, 4).equal(shuffle(20, 2))
    assert shuffle(20, 8, SHARDS // 4).equal(shuffle(20, 1, SHARDS // 4))  # 2 shards
    assert shuffle(200, 8).equal(shuffle(200, 1))  # an exact permutation


def test_spread_takes_samples_at_equal_distances():
    assert spread(torch.arange(10) * 2, 5).tolist() == [0, 4, 8, 12, 16]
    assert spread(torch.arange(3), 5).tolist() == [0, 1, 2]
