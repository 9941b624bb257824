"""The checks that every part of the project makes of its arguments."""

import pytest

from vrnn.arguments import check_counts, check_temperatures, choose


def test_a_count_below_1_is_refused_by_the_name_that_a_user_types():
    check_counts("data.", window=None, batch_size=1)
    for where in ("model.", "model.likelihood.", "objective.", "data.", "--", ""):
        with pytest.raises(ValueError, match=f"^{where}k must be at least 1, not 0$"):
            check_counts(where, size=3, k=0, other=-1)


def test_an_option_may_be_called_as_the_first_argument_is():
    with pytest.raises(ValueError, match="^data.where must be at least 1, not -2$"):
        check_counts("data.", where=-2)


def test_a_choice_names_all_that_there_are():
    choose("model.rnn", "gru", {"lstm": 1, "gru": 2})
    with pytest.raises(ValueError, match="^model.rnn=elman is not one of gru, lstm$"):
        choose("model.rnn", "elman", {"lstm": 1, "gru": 2})


def test_a_temperature_is_0_or_above():
    check_temperatures(0, 0.5, 3)
    for wrong in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"must be 0 .no noise. or above, not {wrong}"):
            check_temperatures(1, wrong)
