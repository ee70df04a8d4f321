"""What a language model says, and whether that is a description of a class."""

from __future__ import annotations

import re
from collections.abc import Mapping

from cache.runtime.errors import shortened

QUOTES = {'"': '"', "'": "'", "“": "”", "\u2018": "\u2019", "`": "`"}
# How models begin when they do not describe: an apology, themselves, what they cannot, a question back.
REFUSALS = (
    r"(?:i'?m |i am |we'?re |we are )?(?:very |so |really |truly |terribly )?sorry\b(?!-)",
    r"(?:i'?m|i am|we'?re|we are) (?:very |so |really )?afraid\b",
    r"(?:my )?(?:sincere )?apolog(?:y|ies)\b",
    r"(?:i|we) (?:must |have to )?apologi[sz]e\b",
    r"unfortunately\b.{0,20}\b(?:i|we)\b",
    r"as an? (?:[\w-]+ ){0,4}(?:ai|artificial intelligence|language model|llm|chatbot|assistant)\b",
    r"(?:i'?m|i am) (?:just |only |simply )?an? (?:[\w-]+ ){0,3}(?:ai|model|llm|chatbot|assistant)\b",
    r"(?:i|we) (?:really |simply |just |also )?(?:can'?t|cannot|can not|could ?n(?:o|')t|won'?t|will not)\b",
    r"(?:i|we) (?:must |have to )?(?:decline|refuse|don'?t|do not)\b",
    r"(?:i'?m|i am|we'?re|we are) (?:unable|unwilling|unsure|unfamiliar|not)\b",
    r"(?:could|can|would) you (?:please |kindly )?(?:clarify|provide|specify|tell|give|share|explain)\b",
    r"please (?:provide|clarify|specify|give|share|tell)\b",
    r"(?:it'?s|it is|that'?s) (?:not possible|impossible|not appropriate|inappropriate) (?:for me )?to\b",
    r"your (?:request|prompt|question|query)\b",
    r"(?:this|the) (?:request|prompt|question|query) (?:is|was|can|could|does|did|has|seems?|contains)",
    r"(?:cannot|can'?t|unable to|not able to) (?:comply|help|assist|answer|describe|provide|fulfil)",
    r"there (?:is|seems to be) (?:an error|a misunderstanding|no (?:such|information|image|context))\b",
    # The same in the languages that models fall into.
    r"(?:lo siento|lamento|disculp|perd[oó]n|lamentablemente|no (?:puedo|podemos|sé|tengo)\b)",
    r"(?:(?:es )?tut mir leid|entschuldig|leider\b|(?:ich|wir) (?:kann|können|darf|dürfen|weiß|habe|bin)\b)",
    r"(?:(?:je suis )?(?:désolé|navré)|malheureusement|(?:je|nous) (?:ne|n'))",
    r"(?:mi dispiace|purtroppo|non (?:posso|possiamo|so|sono in grado)\b)",
    r"(?:desculpe|infelizmente|(?:eu )?não (?:posso|podemos|consigo|sei|tenho)\b)",
    r"(?:helaas|ik (?:kan|weet|heb|ben)\b|tyvärr|jag (?:kan|vet|har)\b)",
    r"(?:niestety|przepraszam|nie (?:mogę|wiem)\b)",
    r"(?:извините|простите|к сожалению|я не\b)",
    r"(?:很?抱歉|对不起|對不起|很遗憾|很遺憾|(?:我|我们|我們)?(?:无法|無法|不能)|我不)",
    r"(?:申し訳|すみません|ごめん|お答えでき|죄송|미안)",
)
_REFUSAL = re.compile(rf"(?:{'|'.join(REFUSALS)})", re.IGNORECASE)
# All that some models say of what they do not know.
_NOTHING = re.compile(
    r"\W*(?:n/?a|none|null|nothing|unknown|undefined|no description(?: available)?)\W*", re.IGNORECASE
)
# Wherever it stands, nobody says this of a thing's looks.
_ANYWHERE = re.compile(
    r"\bas an? (?:[\w-]+ ){0,3}(?:ai|language) (?:language )?model\b"
    r"|\b(?:i can'?t|i cannot|i am unable to|i'm unable to) (?:help|assist|fulfil|comply|provide|describe)",
    re.IGNORECASE,
)


def one_line(text: str) -> str:
    """Return an answer as one line: no line breaks, quotes around it, or reasoning before it."""
    text = re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)
    # Half a surrogate pair, and a mark of byte order, would not survive the file.
    text = text.encode("utf-8", "replace").decode().replace("\ufeff", "")
    text = " ".join(text.split())
    inner = text[1:-1]
    # Not '"Red" and "round"', whose first quote ends before the last one begins.
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1] and text[0] not in inner:
        return inner.strip()
    return text


def no_description(text: str) -> str:
    """Return why one line is no description, or nothing where it may be one."""
    if not re.search(r"\w", text):
        return "an empty answer"
    if "<think>" in text:
        return "an answer that was cut short"  # in its reasoning
    if _NOTHING.fullmatch(text):
        return f"an empty answer: {shortened(text)}"
    if text.endswith((":", "\uff1a")):
        return f"an answer that was cut short: {shortened(text)}"  # behind its announcement
    if text.endswith(("?", "\uff1f")):
        return f"a question: {shortened(text)}"
    plain = text.replace("\u2019", "'").replace("\u2018", "'").lstrip("\"'“*_ ")
    return f"a refusal: {shortened(text)}" if _REFUSAL.match(plain) or _ANYWHERE.search(plain) else ""


def shared_answers(answers: Mapping[str, str]) -> dict[str, str]:
    """Return why answers are no description that several classes got, by class."""
    folders: dict[str, list[str]] = {}
    for folder, text in answers.items():
        folders.setdefault(" ".join(re.findall(r"\w+", text.casefold())), []).append(folder)
    return {
        folder: f"the same as {same[0] if folder != same[0] else same[1]!r} got: {shortened(answers[folder])}"
        for same in folders.values()
        if len(same) > 1
        for folder in same
    }
