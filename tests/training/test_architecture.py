import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnnverify.errors import QueryError
from bnnverify.training.architecture import PRESETS, Conv, flat, hidden_layers, shapes

convs = st.builds(
    Conv,
    filters=st.integers(1, 99),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 3),
    padding=st.integers(0, 4),
    pool=st.integers(1, 3),
)


@given(st.lists(convs, max_size=3), st.lists(st.integers(1, 1000), max_size=3))
def test_the_text_of_an_architecture_reads_back(front, back):
    layers = (*front, *back)
    assert hidden_layers(",".join(map(str, layers))) == layers
    assert hidden_layers(layers) == layers


def test_the_letters_of_a_convolution_come_in_any_order():
    assert hidden_layers("3c5v1p2s3") == hidden_layers("3c5s3v1p2") == (Conv(3, 5, stride=3, padding=1, pool=2),)


def test_a_letter_given_twice_is_refused():
    with pytest.raises(QueryError, match="a hidden block is '16c5p2p3', expected"):
        hidden_layers("16c5p2p3")


def test_the_field_s_sizes_are_there_by_name():
    assert hidden_layers("tfc") == (64, 64, 64)
    assert hidden_layers("sfc") == (256, 256, 256)
    assert hidden_layers("mlp-256-256") == (256, 256)
    for layers, _, source in PRESETS.values():
        assert shapes(layers, (28, 28))
        assert source


def test_shapes_follow_stride_padding_and_pooling():
    layers = (Conv(4, 3, stride=2, padding=1), Conv(6, 3, pool=2), 10)
    # (28 + 2 - 3) // 2 + 1 = 14; 14 - 3 + 1 = 12, pooled 6
    assert shapes(layers, (28, 28)) == [(1, 28, 28), (4, 14, 14), (6, 6, 6), (10,)]
    assert flat((6, 6, 6)) == 216


def test_a_block_that_does_not_fit_its_input_says_so():
    with pytest.raises(QueryError, match="the block 4c5 does not fit its input of 3x3: 0x0 positions are left"):
        shapes((Conv(4, 5),), (3, 3))
    with pytest.raises(QueryError, match="1x1 positions are left, expected at least 2x2"):
        shapes((Conv(4, 3, pool=2),), (3, 3))


def test_positions_that_see_nothing_but_padding_are_refused():
    assert shapes((Conv(4, 3, padding=2),), (8, 8))[1] == (4, 10, 10)
    with pytest.raises(QueryError, match="4c3v3 has 3 rows of padding, expected fewer than the 3 of its kernel"):
        shapes((Conv(4, 3, padding=3),), (8, 8))


@pytest.mark.parametrize("name", ["filters", "kernel", "stride", "pool"])
def test_numbers_of_a_convolution_are_positive_integers(name):
    with pytest.raises(QueryError, match=f"{name} of a convolution block is 0, expected an integer of at least 1"):
        Conv(**{"filters": 2, "kernel": 3, name: 0})
