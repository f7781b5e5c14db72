"""Customers that a model forgets."""

import dataclasses

import numpy as np

from small import made
from vbpr.stores.model.factors import Factors


def test_a_customer_is_gone_from_the_file_and_the_others_get_what_they_got(tmp_path, cli, refused):
    model = tmp_path / "m.model.h5"
    model.write_bytes((made() / "small.model.h5").read_bytes())
    before = Factors.load(model)
    assert cli("index", model)[0] == 0 and b"user/03" in model.read_bytes()
    code, out, err = cli("forget", model, "--user", "user/03", "--user", "user/07")
    assert code == 0 and "2 users forgotten, 12 purchases" in out and "made before" in out, err
    now = Factors.load(model)
    assert b"user/03" not in model.read_bytes() and len(now.user_ids) == 22
    assert not list(tmp_path.glob(".*tmp"))
    for user in ("user/00", "user/23"):
        for one, other in zip(before.recommend(user), now.recommend(user), strict=True):
            np.testing.assert_array_equal(one, other)
    assert "no user 'user/03'" in refused("forget", model, "--user", "user/03")
    (tmp_path / "ids").write_text("\n".join(now.user_ids))
    assert "no user left" in refused("forget", model, "--users", tmp_path / "ids")
    assert "give --user ID or --users FILE" in refused("forget", model)


def test_a_column_that_is_of_nobody_else_goes_too(tmp_path, cli):
    """In a model whose users are the identity, the items' column of a user is that user's scores."""
    base = Factors.load(made() / "small.model.h5")
    scores = base.scores(np.arange(24)).T
    model = tmp_path / "m.h5"
    wide = dataclasses.replace(base, users=np.eye(24, dtype=np.float32), items=scores, head=None)
    wide.save(model)
    assert cli("forget", model, "--user", "user/05")[0] == 0
    now = Factors.load(model)
    assert now.items.shape == (30, 23)
    np.testing.assert_allclose(now.scores(np.arange(23)), np.delete(wide.scores(np.arange(24)), 5, 0), rtol=1e-5)
