"""YAML that is wrong in the ways in which files written by hand are: (content, line, words of the message)."""

WRONG_YAML = {
    "tab": (b"a: 1\n\tb: 2\n", 2, "a tab"),
    "indent": (b"a: 1\n  b: 2\n", 2, "a wrong indent"),
    "dedent": (b"a:\n  b: 1\n c: 2\n", 3, "a wrong indent"),
    "key twice": (b"a: 1\nb: 2\na: 3\n", 3, "the key a occurs twice"),
    "bracket": (b"x: 1\na: [1, 2\nb: 2\n", 2, "a [ that is not closed"),
    "brace": (b"x: 1\na: {b: 2\n", 2, "a { that is not closed"),
    "quote": (b'x: 1\na: "b\nc: 2\n', 2, "a quote that is not closed"),
    "tag": (b"a: 1\nb: !mine x\n", 2, "the tag !mine is not known"),
    "code": (b"a: !!python/object/apply:os.system [echo]\n", 1, "the tag python/object/apply:os.system is not known"),
    "Latin-1": (b"# r\xc3\xa9sum\xc3\xa9\na: caf\xe9\n", 2, "the byte 0xe9 is not UTF-8 text"),
    "UTF-16": ("a: 1\n".encode("utf-16"), 1, "not UTF-8 text"),
    "control character": (b"a: 1\nb: \x01\n", 2, "U+0001"),
    "at sign": (b"a: @b\n", 1, "text that begins with @ is written in quotes"),
    "no colon": (b"a: 1\nb\nc: 2\n", 2, "a key without a colon"),
    "two documents": (b"a: 1\n---\nb: 2\n", 2, "a second document"),
}
