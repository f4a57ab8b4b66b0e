"""Contents of labels, charsets and predictions."""

from pathlib import Path

from case import Case

TITLE = "Labels, charsets and predictions"


def prepare(root: Path) -> None:
    """Labels, charsets and predictions with characters that are unusual or invisible."""
    files = {
        "score.txt": "0.png\t12\t0.98\n1.png\t3\t1.00\n",
        "predicted.txt": "0.png\tab\tac\n",
        "outer.txt": "0.png\t12 \n1.png\t56\u200b\n2.png\t\u300078\n",
        "tabend.txt": "0.png\t12\t\n",
        "emoji.txt": "0.png\t\U0001f468\u200d\U0001f469\u200d\U0001f467\u2764\ufe0f\n",
        "fullwidth.txt": "0.png\t\uff11\uff12\n",
        "decomposed.txt": "0.png\te\u03011\n",
        "accents.txt": "\u00e9\n1\n",
        "hebrew.txt": "0.png\t\u05e9\u05dc\u05d5\u05dd\n",
        "blanks.chars": "1 \n2\t\n \n\n",
        "oneline.chars": "0123456789 \u05e9\u05dc\u05d5\u05dd\n".replace(" ", ""),
        "gap.chars": "1\n\n2\n",
        "tokens.chars": "<unk>\n1\n",
        "columns.chars": "1\t0\n2\t1\n",
        "nfd.chars": "e\u0301\n1\n",
        "joined.chars": "\U0001f469\u200d\U0001f467\n1\n",
        "brackets.txt": "1155 [][\u4e0a] [][\u4e0a]\n1 [\u571f] [\u58eb]\n",
        "threeways.txt": "0 [a] [b] [c]\n",
        "recognized.txt": "0.png\t12\t0.9812\n",
    }
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")


def cases() -> list[Case]:
    audit, score = ["data", "audit"], ["lookalikes", "score", "--predictions"]
    return [
        Case("a third column of scores as labels", [*audit, "score.txt"]),
        Case("a file of predictions as labels", [*audit, "predicted.txt"]),
        Case("a label that ends with a tab", [*audit, "tabend.txt"]),
        Case("outer and invisible characters in labels", [*audit, "outer.txt"]),
        Case("the same, normalized", [*audit, "outer.txt", "--normalize", "nfc,width,space"]),
        Case("an unknown normalization", [*audit, "outer.txt", "--normalize", "trim"]),
        Case("emoji of several code points", [*audit, "emoji.txt"]),
        Case("full-width labels, a half-width charset", [*audit, "fullwidth.txt", "--charset", "digits.txt"]),
        Case("decomposed labels, a composed charset", [*audit, "decomposed.txt", "--charset", "accents.txt"]),
        Case("right-to-left labels", [*audit, "hebrew.txt"]),
        Case("a charset with blanks after characters", [*audit, "fullwidth.txt", "--charset", "blanks.chars"]),
        Case("a charset on one line", [*audit, "fullwidth.txt", "--charset", "oneline.chars"]),
        Case("a charset with an empty line in the middle", [*audit, "fullwidth.txt", "--charset", "gap.chars"]),
        Case("a charset with special tokens", [*audit, "fullwidth.txt", "--charset", "tokens.chars"]),
        Case("a charset with columns", [*audit, "fullwidth.txt", "--charset", "columns.chars"]),
        Case("a decomposed charset", [*audit, "decomposed.txt", "--charset", "nfd.chars", "--normalize", "nfc"]),
        Case("a charset with two code points a class", [*audit, "emoji.txt", "--charset", "joined.chars"]),
        Case("predictions with brackets in texts", [*score, "brackets.txt"]),
        Case("predictions with three brackets", [*score, "threeways.txt"]),
        Case("the output of recognize as predictions", [*score, "recognized.txt"]),
    ]
