import pytest

from hiersplat.semantics.texts import check_texts


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (7, "must be a string, got int"),
        (None, "must be a string, got NoneType"),
        ("mug " * 2500, "too long: 10000 characters"),
        ("кружка", "does not know 'кружка'"),
        ("!!", "does not know"),
    ],
)
def test_a_bad_text_gets_one_line_that_says_why(tiny_encoder, text, said):
    with pytest.raises(ValueError, match=said) as caught:
        tiny_encoder.text_embeddings([text])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_one_bad_text_among_good_ones_is_named(tiny_encoder):
    with pytest.raises(ValueError, match="'кружка'"):
        tiny_encoder.text_embeddings(["red mug", "a кружка"])


def test_a_single_string_is_not_taken_for_a_list_of_letters(tiny_encoder, image):
    with pytest.raises(ValueError, match="list of texts"):
        tiny_encoder.relevancy_maps(image, "mug")


def test_a_model_of_few_words_names_the_unknown_ones_and_what_is_close(tiny_encoder):
    tokenizer = tiny_encoder.processor.tokenizer
    with pytest.raises(ValueError, match=r"does not know 'gren'.*it knows green"):
        check_texts(["gren mug"], tokenizer, 16, frozenset({"green", "mug"}))


def test_case_and_punctuation_of_known_words_do_not_matter(tiny_encoder):
    check_texts(
        ["The red MUG"], tiny_encoder.processor.tokenizer, 16, frozenset({"the", "red", "mug"})
    )
