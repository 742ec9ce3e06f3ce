import numpy as np

from hiersplat.plugin.sheet import recolor


def test_predictions_take_the_ids_of_the_truth_they_overlap_most():
    truth = np.array([[0, 0, 0, 1, 1, 1]])
    predicted = np.array([[9, 9, 9, 9, 4, 4]])
    assert recolor(predicted, truth).tolist() == [[0, 0, 0, 0, 1, 1]]


def test_a_true_id_is_given_once_and_the_rest_stay_apart():
    truth = np.array([[0, 0, 0, 0, -1]])
    predicted = np.array([[2, 2, 2, 5, -1]])
    renamed = recolor(predicted, truth)[0].tolist()
    assert renamed[:3] == [0, 0, 0]
    assert renamed[3] > 0
    assert renamed[4] == -1


def test_nothing_in_common_keeps_predictions_apart():
    renamed = recolor(np.array([[0, 1]]), np.array([[-1, -1]]))[0]
    assert renamed[0] != renamed[1]
