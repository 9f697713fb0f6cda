"""Bad input that several tests share: names, numbers and markup."""

MARKUP = (
    "<script>window.ran=1</script>",
    "<img src=x onerror='window.ran=1'>",
    "![dot](http://198.51.100.7/dot.png)",
    "![dot](http:&#47;&#47;198.51.100.7&#47;dot.png)",
    "[Baseline](javascript:window.ran=1)",
    "<a href='http://198.51.100.7/'>Baseline</a>",
    ":material/delete: :red[error] $x$ `code` **bold** | # heading",
)
"""Names that a page or a chart could take for markup. The address is one that is reserved for documents."""

UNSHOWN = (
    "a\x00b",
    "a\nb",
    "a\rb",
    "\x1b[2J\x1b[31mred",
    "\u202egnp.lautca",
    "\u2066x\u2069",
    "\u2028",
    "\ud800",
    "x\udfff",
)
"""Names with control characters, line breaks, reversed writing, and halves of characters."""

PATHS = (
    "..",
    "../..",
    "../../../../etc/passwd",
    "..\\..\\windows",
    "/etc/passwd",
    "/",
    ".",
    "~",
    "~nobody-at-all/x",
    "a/../../b",
    "C:\\x",
    "file:///etc/passwd",
    "%2e%2e%2fx",
    "..%00",
    ".hidden",
    "con",
    "a" * 300,
    "/" + "a" * 5000,
    "a/" * 3000,
)
"""Names that a folder could be left with, or that are too long for the system."""

ODD = (
    "",
    " ",
    "e" + "\u0301" * 2000,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "ﷺ" * 200,
    "None",
    "nan",
    "1e999",
    "-1",
    "9" * 5000,
    "٣",
    "²",
    "{{7*7}}",
    "%s%n",
    "';--",
    "$(id)",
)
"""Names that are unusual but harmless if they are read as text."""

NAMES = (*MARKUP, *UNSHOWN, *PATHS, *ODD)

VALUES = (
    "1e999",
    "-1e999",
    "NaN",
    "Infinity",
    "1e308",
    "-1",
    "1.5",
    "10" * 150,
    "9" * 5000,
    "1000000000000000000000",
    "true",
    "null",
    '""',
    '"text"',
    '"\\ud800"',
    '"\\u0000"',
    '"\\u202e"',
    "[]",
    "{}",
    "[1]",
    '{"a": 1}',
    "[" * 200 + "]" * 200,
    "[" * 100_000,
)
"""JSON values, as they stand in a file, for places where something else belongs."""


def shortly(text: object) -> str:
    """An input as the name of a test."""
    return ascii(text)[1:41]
