"""Which rows feed which stream: disjoint subjects, exact counts, one seed one plan."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lgdea_jax import cli
from lgdea_jax.data import plan as data_plan
from lgdea_jax.data.dataset import load_index
from lgdea_jax.data.plan import make_plan, parse_weights, split_pairs
from lgdea_jax.errors import UserError


@st.composite
def populations(draw):
    """Subject and study of each row: subjects have 1 to 3 studies, studies 1 or 2 rows, in any order."""
    subjects, studies, study = [], [], 0
    for subject in range(draw(st.integers(1, 25))):
        for _ in range(draw(st.integers(1, 3))):
            study += 1
            for _ in range(draw(st.integers(1, 2))):
                subjects.append(subject * 7919 + 1)
                studies.append(study * 104729)
    order = np.array(draw(st.permutations(range(len(subjects)))))
    return np.array(subjects, np.uint64)[order], np.array(studies, np.uint64)[order]


@settings(max_examples=200, deadline=None)
@given(populations(), st.floats(0.02, 1.0), st.booleans(), st.integers(0, 5))
def test_split_by_subject_with_exact_counts(population, share, as_count, seed):
    subjects, studies = population
    total = len(np.unique(studies))
    wanted = round(share * total)
    assume(wanted >= 1 and not (as_count and wanted == 1))
    parts = split_pairs(subjects, studies, pairs=wanted if as_count else share, seed=seed)
    again = split_pairs(subjects, studies, pairs=wanted if as_count else share, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert len(np.unique(studies[parts[0]])) == wanted
    people = [set(subjects[part].tolist()) for part in parts]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert abs(len(people[1]) - len(people[2])) <= 1
    for part in parts:
        assert (np.diff(part) > 0).all()
    # Everything is used, but for the studies of at most one subject that did not fit.
    missing = np.setdiff1d(np.arange(len(subjects)), np.concatenate(parts))
    assert len(np.unique(subjects[missing])) <= 1
    assert set(subjects[missing].tolist()) <= people[0]
    # A study is whole wherever it is.
    for part in parts:
        assert set(np.flatnonzero(np.isin(studies, studies[part])).tolist()) == set(part.tolist())


def test_everything_is_used_where_subjects_fit():
    subjects = np.repeat(np.arange(1, 101, dtype=np.uint64), 2)
    studies = np.arange(1, 201, dtype=np.uint64)
    paired, images, reports = split_pairs(subjects, studies, pairs=0.1, seed=0)
    assert (len(paired), len(images), len(reports)) == (20, 90, 90)


def test_another_seed_is_another_split_and_subjects_mix():
    subjects = studies = np.arange(1, 1001, dtype=np.uint64)
    one, other = (split_pairs(subjects, studies, pairs=100, seed=seed)[0] for seed in (0, 1))
    assert len(np.intersect1d(one, other)) < 40  # 10 by chance.
    assert 300 < one.mean() < 700


def test_the_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(0)
    subjects, studies = rng.integers(1, 60, 100).astype(np.uint64), np.arange(1, 101, dtype=np.uint64)
    order = rng.permutation(100)
    first = split_pairs(subjects, studies, pairs=0.3, seed=3)
    second = split_pairs(subjects[order], studies[order], pairs=0.3, seed=3)
    for a, b in zip(first, second, strict=True):
        assert set(studies[a].tolist()) == set(studies[order][b].tolist())


@pytest.mark.parametrize("pairs", [0, -1, 11, 2.5, float("nan"), 0.01])
def test_impossible_numbers(pairs):
    with pytest.raises(UserError, match=r"data\.pairs"):
        split_pairs(np.arange(10, dtype=np.uint64), np.arange(10, dtype=np.uint64), pairs=pairs, seed=0)


def test_weights():
    assert parse_weights(["a", "b:2.5", "c:d", "e:f:0.5"]) == [("a", None), ("b", 2.5), ("c:d", None), ("e:f", 0.5)]
    for wrong in ("a:0", "a:-1", "a:inf"):
        with pytest.raises(UserError, match="must be positive"):
            parse_weights([wrong])


@pytest.fixture
def config(phantom_data):
    config = cli.read_config("configs/common.py").data
    config.dir, config.equal_reports = str(phantom_data), "allow"
    return config


def studies_of(part):
    return len(np.unique(load_index(part.directory, part.split)["study"][part.rows]))


def test_plan_of_a_data_set(config):
    config.pairs = 10
    plan = make_plan(config, seed=0)
    assert plan.count("pairs") >= 10 and studies_of(plan.parts["pairs"][0]) == 10
    rows = [part.rows for stream in data_plan.STREAMS for part in plan.parts[stream]]
    assert len(np.unique(np.concatenate(rows))) == sum(map(len, rows)) == 40


def test_a_count_is_over_all_data_sets(config):
    directory = config.dir
    config.dir, config.pairs_from, config.pairs = "", (directory, f"{directory}/"), 20
    plan = make_plan(config, seed=0)
    assert sum(studies_of(part) for part in plan.parts["pairs"]) == 20
    # Equal ids are taken for equal people, so they are on one side in both.
    one, other = (set(part.rows.tolist()) for part in plan.parts["pairs"])
    assert one <= other or other <= one


def test_more_images_and_reports_come_unpaired(config):
    config.images_from = (f"{config.dir}/",)
    plan = make_plan(config, seed=0)
    assert [plan.count(stream) for stream in data_plan.STREAMS] == [40, 40, 0]


def test_no_data_and_two_ways_of_naming_it(config):
    config.pairs_from = (config.dir,)
    with pytest.raises(UserError, match="exclude each other"):
        make_plan(config, seed=0)
    config.dir, config.pairs_from = "", ()
    with pytest.raises(UserError, match=r"data_prep\.build"):
        make_plan(config, seed=0)


def test_a_part_of_the_unpaired_items(config):
    config.images_from, config.pairs = (f"{config.dir}/",), 10
    every = make_plan(config, seed=0)
    pools = {stream: [set(part.rows.tolist()) for part in every.parts[stream]] for stream in data_plan.STREAMS}

    def draw(images, reports, seed=0):
        config.images, config.reports = images, reports
        return make_plan(config, seed=seed)

    small, large = draw(12, 5), draw(30, 0.5)
    assert [small.count(stream) for stream in data_plan.STREAMS] == [every.count("pairs"), 12, 5]
    assert [large.count("images"), large.count("reports")] == [30, round(every.count("reports") / 2)]
    for plan in (small, large):
        for stream in data_plan.STREAMS:
            assert all(set(part.rows.tolist()) <= pool for part, pool in zip(plan.parts[stream], pools[stream]))
            assert all(np.all(np.diff(part.rows) > 0) for part in plan.parts[stream])
    # More images are the same ones and further ones.
    for one, other in zip(small.parts["images"], large.parts["images"], strict=True):
        assert set(one.rows) < set(other.rows)
    assert not np.array_equal(draw(12, 5, seed=1).parts["images"][1].rows, small.parts["images"][1].rows)


@pytest.mark.parametrize(("stream", "wanted", "message"), [
    ("images", 10_000, "asks for 10000 unpaired images; there are"), ("reports", 1.5, "not a whole number of unpaired"),
    ("images", 0, "a share in"), ("reports", -1, "a share in")])
def test_impossible_parts_of_the_unpaired_items(config, stream, wanted, message):
    config.pairs = 10
    config[stream] = float(wanted)
    with pytest.raises(UserError, match=f"data.{stream}=.*{message}"):
        make_plan(config, seed=0)


def test_a_part_of_nothing_is_an_error(config):
    config.images = 0.5
    with pytest.raises(UserError, match="there are 0"):
        make_plan(config, seed=0)
