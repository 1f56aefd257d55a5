"""Brings the translations up to their pages: ``python docs/update_translations.py``.

Messages that have changed keep no translation, so that the built page shows them in English; they are printed, to be
translated in docs/locale/<language>/LC_MESSAGES. The file notes by a digest which version of its page it was made from,
and a test compares that with the page.
"""

import hashlib
import io
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
LOCALE = DOCS / "locale"


def digest(page):
    """What a translation notes of the page that it was made from."""
    return hashlib.sha256(page.read_bytes()).hexdigest()[:16]


def translations():
    """Every translation with the page that it is of."""
    for path in sorted(LOCALE.glob("*/LC_MESSAGES/**/*.po")):
        yield (
            path,
            DOCS / path.relative_to(LOCALE).relative_to(Path(*path.relative_to(LOCALE).parts[:2])).with_suffix(".rst"),
        )


def noted(translation):
    """The digest that a translation notes."""
    found = re.search(r"digest (\w+)", translation.read_text("utf-8").split("\n", 1)[0])
    return found and found[1]


def header(language, page):
    return (
        f"# cvkit in {language}. Made from docs/{page.relative_to(DOCS).as_posix()}, digest {digest(page)}.\n"
        "# After the page has changed: python docs/update_translations.py\n"
        f'msgid ""\nmsgstr ""\n"Language: {language}\\n"\n"Content-Type: text/plain; charset=utf-8\\n"\n\n'
    )


def main():
    from babel.messages.pofile import read_po, write_po

    with tempfile.TemporaryDirectory() as templates:
        subprocess.run([sys.executable, "-m", "sphinx", "-q", "-b", "gettext", str(DOCS), templates], check=True)
        for path, page in translations():
            language = path.relative_to(LOCALE).parts[0]
            old = {one.id: one.string for one in read_po(io.BytesIO(path.read_bytes()), locale=language) if one.id}
            template = Path(templates, page.relative_to(DOCS)).with_suffix(".pot")
            new = read_po(io.BytesIO(template.read_bytes()), locale=language)
            for message in new:
                if message.id:
                    message.string, message.locations, message.auto_comments = old.get(message.id, ""), [], []
                    if message.id not in old:
                        print(f"{path.relative_to(DOCS)}: translate: {message.id}")
            written = io.BytesIO()
            write_po(written, new, omit_header=True, width=110)
            path.write_text(header(language, page) + written.getvalue().decode(), "utf-8")


if __name__ == "__main__":
    main()
