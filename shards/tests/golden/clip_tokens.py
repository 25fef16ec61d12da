"""Golden file clip_tokens.txt: captions and their token ids by transformers' CLIPTokenizerFast.

    pip download --no-deps open-clip-torch==3.3.0 && unzip -p open_clip_torch-*.whl '*/bpe_simple_vocab_16e6.txt.gz' > bpe.gz
    pip install transformers==5.23.0 && python clip_tokens.py bpe.gz [FOLDER]

A line a caption: its JSON string, a tab, its ids without any cut. With FOLDER, the tokenizer is also saved there: its
tokenizer.json is what `Tokenizer::open` reads.

The normalization is that of the fast tokenizer (NFC, white space to one space, lower case). The slow one of older
versions also runs ftfy where that is installed, which changes curly quotes and HTML entities; FG-CLIP and everybody
who loads a tokenizer.json do not.
"""

import gzip
import json
import os
import random
import sys
import tempfile

from transformers import CLIPTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
START, END = "<|startoftext|>", "<|endoftext|>"

ODD = [
    "",
    " ",
    " \t\n ",
    "x",
    "?!",
    "  leading   and   inner   spaces  ",
    "UPPER CASE, lower case and CamelCase words",
    "tabs\tand\u00a0no-break\u2009spaces, a zero\u200bwidth one, an \u3000ideographic one and a\u2028line separator",
    "line\nbreaks\r\nof\u0085all\x0bkinds\x0chere",
    "control\x00\x01\x1b\x1c\x1d\x1e\x1f\x7f characters",
    "a byte order mark \ufeff and a soft hy\u00adphen",
    "don't, it's, they're, we've, I'm, she'll, he'd, DON'T, IT'S, WE'LL, o'clock, rock 'n' roll, 's 't 're",
    "curly don\u2019t, it\u2019s, \u201cquoted\u201d \u2018too\u2019 and \u00abso\u00bb",
    "''s '''t ''''re 'v 'l 'mm 'dd 'sS",
    "Tom &amp; Jerry &lt;b&gt;bold&lt;/b&gt; &#39;quoted&#39; &quot;so&quot; &nbsp; &eacute; &amp;amp;",
    "<b>markup</b> <br/> <!-- comment --> <?xml version='1.0'?>",
    "Caf\u00e9 cr\u00e8me br\u00fbl\u00e9e, na\u00efve fa\u00e7ade, \u00c5ngstr\u00f6m, Stra\u00dfe, STRASSE, \u1e9e, \u0132ssel",
    "e\u0301 composed of two code points, n\u0303, A\u030a, o\u0308\u0304, \u1100\u1161\u11a8 of jamo, q\u0323\u0307",
    "\u212b \u2126 \u212a \uf900 \ufb01 \ufb03 \u01c5 \u01f1 compatibility and title case",
    "\u0130stanbul, I\u0307 and \u0131, DI\u015eARI",
    "\u039f\u03b4\u03c5\u03c3\u03c3\u03b5\u03cd\u03c2, \u039f\u0394\u03a5\u03a3\u03a3\u0395\u03a5\u03a3 \u03a3 \u03a3\u03a3 A\u03a3",
    "\u4e00\u53ea\u9ed1\u732b\u5750\u5728\u7ea2\u8272\u7684\u6905\u5b50\u4e0a\uff0c\u65c1\u8fb9\u6709\u4e24\u672c\u4e66\u3002",
    "\u9752\u3044\u30b3\u30c3\u30d7\u306e\u968a\u306b\u5c0f\u3055\u306a\u72ac\u304c\u3044\u307e\u3059\u3002\uff8a\uff9d\uff76\uff78",
    "\ud55c\uad6d\uc5b4 \uc124\uba85: \ube68\uac04 \uc758\uc790 \uc704\uc758 \uace0\uc591\uc774",
    "\u041a\u043e\u0448\u043a\u0430 \u0441\u0438\u0434\u0438\u0442 \u043d\u0430 \u041a\u0420\u0410\u0421\u041d\u041e\u041c \u0441\u0442\u0443\u043b\u0435, \u0401\u043b\u043a\u0430",
    "\u0642\u0637\u0629 \u0633\u0648\u062f\u0627\u0621 \u0639\u0644\u0649 \u0643\u0631\u0633\u064a \u0623\u062d\u0645\u0631\u060c \u0627\u0644\u0639\u062f\u062f \u0661\u0662\u0663",
    "\u05d7\u05ea\u05d5\u05dc \u05e9\u05d7\u05d5\u05e8 \u05e2\u05dc \u05db\u05d9\u05e1\u05d0",
    "\u0932\u093e\u0932 \u0915\u0941\u0930\u094d\u0938\u0940 \u092a\u0930 \u092c\u093f\u0932\u094d\u0932\u0940, \u0e41\u0e21\u0e27\u0e14\u0e33\u0e19\u0e31\u0e48\u0e07\u0e1a\u0e19\u0e40\u0e01\u0e49\u0e32\u0e2d\u0e35\u0e49",
    "\u13a0\u13b3\u13a9 \u10a0\u10a1 \u1c90\u1c91 \U00010400\U00010401 \U0001d400\U0001d401 \uff21\uff22\uff41\uff42 \u24b6\u24d0",
    "an emoji \U0001f98a between words \U0001f692\U0001f692 and\U0001f98aglued",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 \u2764\ufe0f\u200d\U0001f525 1\ufe0f\u20e3 #\ufe0f\u20e3 \u263a\ufe0f",
    ":) :-) ;-P <3 \u00af\\_(\u30c4)_/\u00af (\u256f\u00b0\u25a1\u00b0)\u256f \u253b\u2501\u253b",
    "http://example.org/a?b=c&d=e#f 1,234.56 kg (approx.) me@example.org C:\\path\\to\\x.PNG",
    "1 12 123 1234 12345 1st 2nd 3rd 3.14159 -7 +8 1e-9 0xFF 50% $9.99 \u20ac5 \u00a37 12:34:56 2026-11-25",
    "\u00b2 \u00b3 \u00bd \u2163 \u2167 \u2460 \u3007 \u0663\u0664 \U0001d7d8 x\u00b2+y\u00b2",
    "#hashtag @mention snake_case kebab-case CONST_VALUE a.b.c a/b/c a|b a~b a`b`c a^b {x} [y] (z)",
    "!!! ??? ... \u2026 --- \u2013 \u2014 *** ___ === +++ ### @@@ &&& %%% ;;; ::: ,,, ,.;:!?",
    "?!?!?! ... 'quoted'!!! (\"nested\" [brackets])... ---> <=== //// \\\\\\\\ \u2605\u2606\u2605 \u00a9\u00ae\u2122",
    "<start_of_text> and <end_of_text>, !!<start_of_text>, <START_OF_TEXT>x, x<end_of_text><end_of_text>",
    "<|startoftext|>a fox<|endoftext|> and more <|endoftext|>",
    "<|STARTOFTEXT|> <|EndOfText|> <|endoftext|e\u0301<|endoftext|>\u0301 <| endoftext |> <|endoftext",
    "[MASK] and [SEP] written out, and [UNK] too, <unk> <pad> </s> </w> a</w> Ġa",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis Donaudampfschifffahrtsgesellschaft",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "abababababababababababababababab hahahahahahahahahaha lololololololol zzzzzzzz",
    "f7Kq9ZxVb2LmN4pRt6WyC8dEg1HjSa3UoXiP5 QWERTYUIOPASDFGHJKLZXCVBNM bcdfghjklmnpqrstvwxz",
    "-" * 300,
    "\u2500" * 120,
    "\u732b" * 250,
    "a photo of a " + "very " * 248 + "long queue",
    "\u00e9" * 90 + " " + "e\u0301" * 90,
]

COLOURS = "red, teal, off-white, DARK GREEN, golden, #ff8800, brown-ish, translucent, crème, navy/grey".split(", ")
THINGS = "umbrella, fire engine, tabby cat, saxophone, iPhone 12, T-shirt, ice-cream cone, Ferris wheel, No. 7 bus, café table".split(", ")
PLACES = ["in the upper left corner", "behind the fence", "next to a smaller one", "half hidden by a leaf", "at (12, 40)", "on O'Connell St."]
DETAILS = [
    "Its outline is crisp & its surface slightly glossy.",
    "It's the 2nd-largest thing in the picture, after the lighthouse!",
    "Nobody seems to be looking at it; the light falls from the right (about 30°).",
    "A thin shadow runs along its lower edge -- fading towards the viewer...",
    "Compared with its neighbours it looks newer, cleaner and \"a little\" out of place.",
    "The sign above reads “SALE – 50% OFF”, in white letters.",
    "They've placed 3 cups, 12 plates and 1,024 beads around it.",
]

# What a random caption is made of: first and last code point of a block, and how often it is drawn from.
BLOCKS = [
    (0x20, 0x7E, 30), (0xA1, 0xFF, 8), (0x100, 0x17F, 4), (0x300, 0x36F, 2), (0x391, 0x3C9, 3), (0x410, 0x44F, 3),
    (0x5D0, 0x5EA, 1), (0x621, 0x64A, 1), (0x905, 0x939, 1), (0xE01, 0xE3A, 1), (0x1E00, 0x1EFF, 2), (0x2010, 0x2027, 2),
    (0x2030, 0x205E, 1), (0x20A0, 0x20BF, 1), (0x2100, 0x218B, 2), (0x2190, 0x23FF, 1), (0x2500, 0x27BF, 2),
    (0x3001, 0x30FF, 2), (0x4E00, 0x9FA5, 4), (0xAC00, 0xD7A3, 2), (0xFF01, 0xFF5E, 1), (0x1F300, 0x1F5FF, 3),
    (0x1F600, 0x1F64F, 3), (0x1F680, 0x1F6C5, 1),
]


def scene(rng: random.Random) -> str:
    text = f"a {rng.choice(COLOURS)} {rng.choice(THINGS)} {rng.choice(PLACES)}"
    for _ in range(rng.choice([0] * 8 + [1, 1, 1, 2, 3, 14])):
        text += (" " if text.endswith((".", "!")) else ". ") + rng.choice(DETAILS)
    return text


def noise(rng: random.Random) -> str:
    """Words of random code points: no language, but every way in which classes of characters can meet."""
    weights = [w for _, _, w in BLOCKS]
    words = []
    for _ in range(rng.randint(1, 9)):
        first, last, _ = rng.choices(BLOCKS, weights)[0]
        letters = [chr(rng.randint(first, last)) for _ in range(rng.randint(1, 6))]
        for _ in range(rng.randint(0, 3)):
            first, last, _ = rng.choices(BLOCKS, weights)[0]
            letters.insert(rng.randint(0, len(letters)), chr(rng.randint(first, last)))
        words.append("".join(letters))
    return rng.choice([" ", " ", "  ", "", "\u00a0", "\n"]).join(words)


def captions() -> list:
    rng = random.Random(20260102)
    with open(os.path.join(HERE, "../../../model/tests/golden/minilm.txt"), encoding="utf-8") as lines:
        texts = ODD + [line.rstrip("\n") for line in lines]
    return texts + [scene(rng) for _ in range(450)] + [noise(rng) for _ in range(1000 - 450 - len(texts))]


def tokenizer(merges_gz: str) -> CLIPTokenizerFast:
    """OpenAI's vocabulary: 256 bytes, the same at the end of a word, one token a merge, and the two special ones."""
    with gzip.open(merges_gz, "rt", encoding="utf-8") as lines:
        merges = lines.read().split("\n")[1 : 49152 - 256 - 2 + 1]
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    letters = [chr(b) for b in plain] + [chr(256 + i) for i in range(256 - len(plain))]
    words = letters + [x + "</w>" for x in letters] + [m.replace(" ", "") for m in merges] + [START, END]
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as out:
            json.dump({word: i for i, word in enumerate(words)}, out)
        with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as out:
            out.write("#version: 0.2\n" + "\n".join(merges) + "\n")
        return CLIPTokenizerFast.from_pretrained(folder)


clip = tokenizer(sys.argv[1])
assert (len(clip), clip.bos_token_id, clip.eos_token_id, clip.pad_token_id) == (49408, 49406, 49407, 49407)
if len(sys.argv) > 2:
    clip.save_pretrained(sys.argv[2])
texts = captions()
lengths = []
with open(os.path.join(HERE, "clip_tokens.txt"), "w", encoding="utf-8", newline="\n") as out:
    for text in texts:
        ids = clip(text)["input_ids"]
        for most in (2, 77, 248):
            # What the test takes the cut to be, so that one list a caption is enough.
            cut = clip(text, truncation=True, max_length=most)["input_ids"]
            assert cut == (ids if len(ids) <= most else ids[: most - 1] + [49407]), text
        out.write(json.dumps(text) + "\t" + " ".join(map(str, ids)) + "\n")
        lengths.append(len(ids))
print(len(texts), "captions,", sum(lengths), "tokens, from", min(lengths), "to", max(lengths))
