"""What a language model answered: a description, or none; on one line."""

from __future__ import annotations

import pytest

from cache.prepare.answers import no_description, one_line


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I am sorry, I cannot describe this.",
        "Sorry, I can't do that.",
        "As an AI language model, I don't have eyes.",
        "As a large language model, I have never seen one.",
        "I cannot provide a description of that.",
        "I can\u2019t assist with that request.",
        "I'm unable to see what it looks like.",
        "I don't have information about this class.",
        "I'm not familiar with that.",
        "Unfortunately, I have no information on it.",
        "My apologies, but this is beyond me.",
        "Could you please clarify which one you mean?",
        "Please provide more context.",
        "**I'm sorry**, but no.",
        "Lo siento, no puedo ayudar con eso.",
        "Je ne peux pas répondre à cette question.",
        "Dabei kann ich nicht helfen. Worum geht es?",
        "Leider kann ich das nicht beschreiben.",
        "Non posso aiutarti.",
        "Я не могу помочь.",
        "我无法回答这个问题。",
        "Unable to assist.",
        "N/A",
        "None.",
        "Sure! Here is a description of it:",
        "What kind of orange do you mean?",
        "...",
        "<think>\nThe user wants",
    ],
)
def test_a_refusal_is_no_description(text: str):
    assert no_description(one_line(text))


@pytest.mark.parametrize(
    "text",
    [
        "It is a small round fruit, red when it is ripe.",
        "As an annual plant, it has small white flowers and thin leaves.",
        "A sorry-looking shrub with few leaves.",
        "Sorry-looking leaves hang from thin stems.",
        "Afraid of nothing, it stands upright and has a black mane.",
        "The question mark is a hook over a dot.",
        "This request stop is a pole with a yellow sign.",
        "None of its petals overlap, and all are red.",
        "Un disco azul y redondo.",
        "Leiderdorp's town hall is grey.",
        "Airy and light, it is a sponge cake with cream.",
        "Iris flowers have three upright petals and cannot be mistaken for lilies.",
        "The assistant's chair is black, with a high back.",
        "红色的圆形水果。",
    ],
)
def test_a_description_is_no_refusal(text: str):
    assert no_description(one_line(text)) == ""


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (' "It is red." ', "It is red."),
        ("“It is\nred.”", "It is red."),
        ('"Red" and "round"', '"Red" and "round"'),
        ('It is "red"', 'It is "red"'),
        ("a\x85b\x0bc\u2029d", "a b c d"),
        ("\ufeffred \ud800", "red ?"),
        ('""', ""),
    ],
)
def test_one_line(answer: str, line: str):
    assert one_line(answer) == line
