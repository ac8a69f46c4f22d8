"""The generated pages are current, and say something of every key and flag."""

import pytest

from tests.docs.pages import REFERENCE, ROOT, read, rows


@pytest.mark.parametrize("page,make", [("configuration.md", "configuration"), ("commands.md", "command_page")])
def test_the_committed_page_is_current(page, make):
    assert read(ROOT / "docs/reference" / page) == REFERENCE[make](), "run python docs/make_reference.py"


@pytest.mark.parametrize("page", ["configuration.md", "commands.md"])
def test_nothing_is_without_a_description(page):
    table = rows(read(ROOT / "docs/reference" / page))
    assert len(table) > 100
    assert [cells for cells in table if not cells[-1]] == []


def test_every_key_of_common_is_on_the_page():
    from lgdea_jax import cli

    page = read(ROOT / "docs/reference/configuration.md")
    keys = [key for key, _ in REFERENCE["leaves"](cli.read_config("configs/common.py"))
            if not key.startswith(REFERENCE["SAME_KEYS"])]
    assert len(keys) > 100 and [key for key in keys if f"| `{key}` |" not in page] == []


def test_comments_are_found_above_and_behind_a_key():
    source = '''
shared = {"rate": 1.0}  # Of all.
config.group = ConfigDict({
    # One line,
    # and another.
    "first": 1,  # And more.
    "second": {"inner": 2},  # Short.
})
config.alone = 3
'''
    found = REFERENCE["comments"](source)
    assert found["group.first"] == "One line, and another. And more."
    assert found["group.second.inner"] == "Short." and found["shared.rate"] == "Of all."
    assert found["alone"] == "" and list(found).index("group.first") < list(found).index("group.second")
