"""Mutations of seed files: each is read or refused."""


def test_mutations(run, written) -> None:
    run("mutations.py", "--count", "300")
    found = written("mutations")
    assert found["seeds"] == 30
    assert found["read"] + found["refused"] == found["files"] == 300
    assert found["read"] > 30
    assert found["refused"] > 30
