#!/usr/bin/env python3
"""Writes llama3_tokenizer.json beside this script: what Hugging Face's `tokenizers` makes of our own texts.

usage: make_tokenizer_golden.py FOLDER    (of Llama 3.1's tokenizer.json; needs `pip install tokenizers`)
"""

import json
import pathlib
import random
import sys

from tokenizers import Tokenizer

HAND_MADE = [
    # languages
    "The quick brown fox jumps over the lazy dog.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Portez ce vieux whisky au juge blond qui fume — dès Noël, où un zéphyr haï me vêt.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.",
    "いろはにほへと ちりぬるを 東京タワーは333メートルです。",
    "天地玄黄,宇宙洪荒。日月盈昃,辰宿列张。",
    "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر",
    "דג סקרן שט בים מאוכזב ולפתע מצא חברה",
    "ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश",
    "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า",
    "Do bạch kim rất quý nên sẽ dùng để lắp vô xương",
    "ქართული ენა · հայերեն լեզու · አማርኛ",
    # code
    "def f(x: int) -> list[int]:\n    return [i ** 2 for i in range(x) if i % 3 != 0]\n",
    "for (size_t i = 0; i < n; ++i) {\n\tout[i] += a[i] * b[i];  // fused\n}\n\n\n",
    "SELECT name, COUNT(*) FROM t WHERE x >= 10 AND y <> 'it''s' GROUP BY 1;\r\n",
    "<div class=\"a b\" data-x='1'>&nbsp;&#x27;</div>\n<!-- c -->",
    "{\"k\": [1, 2.50, -3e-7, null, true], \"u\": \"\\u00e9\"}",
    "$ git log --oneline | head -n 5 && rm -rf ./build/*\n",
    "https://example.org/a_b/c-d?q=1&r=%20#frag user@example.org C:\\dir\\file.txt",
    # emoji and joiners
    "🙂🙃 👩‍👩‍👧‍👦 👍🏽 🇫🇷🇯🇵 ❤️ 1️⃣ ™️ ⁉️",
    "e\u0301 vs é, a\u200db, \u200e\u200f, \ufeffbom, soft\u00adhyphen, x\u180ey \u180e z",
    # white space
    " ", "  ", "   \n", "\n\n\n", " \n \n ", "\t\t x", "a  b   c    d", "x \u00a0y", "\u3000全角\u3000",
    "a\u2028b\u2029c\u0085d\u000be\u000cf", "trailing   ", "\r\n\r\n  \r\n", "a\u001cb\u001f c", "   a\n   b\n",
    " \u2003\u2003x", "\u1680y", "\u205f\u202fz",
    # contractions, folded by case: U+017F is a small s and U+212A a k
    "I'M HERE, YOU'RE THERE, WE'LL, THEY'VE, HE'D, IT'S, DON'T",
    "it'\u017f it'\u017ft 'S't'rE'Ve'M'lL'D '\u212a 'x ''s '''s",
    "l'été d'accord aujourd'hui rock'n'roll o’clock it’s",
    # numbers
    "0 1 12 123 1234 12345 123456 1234567", "3.14159 1,000,000.00 -42 +7 1e-9 0xFF 2²³ ½ Ⅷ ①②③",
    "١٢٣٤٥ १२३४५ 12345 一二三", "v1.2.3-rc4 2024-07-26T12:34:56Z",
    # punctuation
    "...!!!???;;;:::---===___", "(a)[b]{c}<d>«e»“f”‘g’", " -- \n--\n", "!\n?\r\n.\n\n", "a/b\\c|d~e`f^g@h#i$j%k&l*m",
    "", "a", "A", "é", "\u0000\u0001\u007f", "\U0010ffff\ue000\ufffd",
    "x" * 200, "ab" * 150, "=" * 300, " " * 500 + "x", "\n" * 300, "9" * 100, "あ" * 120,
]

WORDS = (
    "the it's DON'T we'LL 'ſ naïve über 东京 привет мир नमस्ते 🙂 👩‍💻 ... !? -- 12 1234567 ½ \n \n\n \r\n \t "
    "    foo_bar fooBar x+=1; \u00a0 \u3000 \u200d \u0301 ' \" ''s ) ( { } 0x1f é ß ſt K İ ı Σς ﬁ"
).split(" ")


def main():
    tokenizer = Tokenizer.from_file(str(pathlib.Path(sys.argv[1]) / "tokenizer.json"))
    draw = random.Random(1)
    mixed = ["".join(draw.choice(WORDS) + draw.choice(["", " ", " ", "  "]) for _ in range(draw.randint(2, 25)))
             for _ in range(150)]
    cases = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in HAND_MADE + mixed]
    out = pathlib.Path(__file__).parent / "llama3_tokenizer.json"
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    out.write_text("[\n" + lines + "\n]\n")
    print(f"{out}: {len(cases)} texts, {sum(len(case['ids']) for case in cases)} tokens")


if __name__ == "__main__":
    main()
