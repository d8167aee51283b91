"""Extracts, cleans and splits the texts that the model is trained and measured on."""
import re

import r_data

AUSTEN = "usr/lib/R/site-library/janeaustenr/data"
SAWYER = "usr/share/gocode/src/github.com/klauspost/compress/testdata/Mark.Twain-Tom.Sawyer.txt"
OPTICKS = "usr/share/go-1.19/src/testdata/Isaac.Newton-Opticks.txt"
PACKAGE_OF = {AUSTEN: "r-cran-janeaustenr", SAWYER: "golang-github-klauspost-compress-dev",
              OPTICKS: "golang-1.19-src"}

BASE_NOVELS = ["sensesensibility", "prideprejudice", "mansfieldpark", "emma", "northangerabbey"]
HELD_OUT_NOVEL = "persuasion"

TO_ASCII = str.maketrans({
    "\N{LATIN SMALL LETTER AE}": "ae", "\N{LATIN CAPITAL LETTER AE}": "Ae",
    "\N{LATIN SMALL LETTER E WITH CIRCUMFLEX}": "e", "\N{LATIN SMALL LETTER U WITH CIRCUMFLEX}": "u",
    "\N{ACUTE ACCENT}": "'", "\N{MULTIPLICATION SIGN}": "x", "\N{MIDDLE DOT}": ".",
    "\N{SECTION SIGN}": "Sect. ", "\N{POUND SIGN}": "L.",
})


def clean(text):
    """ASCII only, line breaks kept, without trailing blanks and runs of empty lines."""
    text = text.translate(TO_ASCII)
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n{3,}", "\n\n", text)
    text.encode("ascii")  # raises on a character that TO_ASCII lacks
    return text


def split_at_paragraph(text, share=0.9):
    """Two parts; the first is at most `share` of the text and ends with a whole paragraph."""
    cut = text.rfind("\n\n", 0, int(len(text) * share)) + 2
    return text[:cut], text[cut:]


def find(packages, path):
    if not (packages / path).exists():
        raise FileNotFoundError(
            f"there is no {path} under {packages}: install the Debian 12 package {PACKAGE_OF[path]} with "
            "apt-get, or unpack it with dpkg-deb -x into a folder and give that folder as --packages")
    return packages / path


def read_austen(packages):
    novels = r_data.read_package_data(find(packages, AUSTEN))
    return {name: "\n".join(lines).strip() for name, lines in novels.items()}


def read_sawyer(packages):
    text = find(packages, SAWYER).read_text(encoding="utf-8", errors="replace")
    return text[text.index("P R E F A C E"):text.index("End of the Project Gutenberg")].strip() + "\n"


def read_opticks(packages):
    text = find(packages, OPTICKS).read_text(encoding="utf-8")
    text = text[text.index("OPTICKS:"):]
    return re.sub(r"(?m)^\[Illustration.*\]\n", "", text).strip() + "\n"


def write(texts):
    """Writes cleaned texts: a dict from path to text."""
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(clean(text), encoding="ascii", newline="\n")


def write_novels(packages, folder):
    """What the base is trained on, base.train.txt; held out, persuasion.txt and sawyer.test.txt."""
    novels = read_austen(packages)
    sawyer_train, sawyer_test = split_at_paragraph(read_sawyer(packages))
    base_train = "\n\n".join([novels[name] for name in BASE_NOVELS] + [sawyer_train.strip()]) + "\n"
    write({folder / "base.train.txt": base_train,
           folder / "persuasion.txt": novels[HELD_OUT_NOVEL] + "\n",
           folder / "sawyer.test.txt": sawyer_test})


def write_opticks(packages, folder):
    """What adapters are trained on, opticks.train.txt, and its held-out end, opticks.test.txt."""
    train, test = split_at_paragraph(read_opticks(packages))
    write({folder / "opticks.train.txt": train, folder / "opticks.test.txt": test})


def write_excerpt(tokenizer, source, target, windows, window):
    """Copies the start of `source`: the fewest lines that hold `windows` windows and one token more.

    The excerpt's tokens are then the source's first ones, so a perplexity over these windows is the same."""
    text = source.read_text(encoding="ascii")
    tokens = tokenizer(text, return_offsets_mapping=True)
    needed = windows * window + 1
    end_of_token = tokens["offset_mapping"][needed - 1][1]
    excerpt = text[:text.index("\n", end_of_token - 1) + 1]
    ids = tokenizer(excerpt)["input_ids"]
    if ids[:needed] != tokens["input_ids"][:needed] or (len(ids) - 1) // window != windows:
        raise RuntimeError(f"{source}: the excerpt is not tokenised as the whole text is")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(excerpt, encoding="ascii", newline="\n")
