"""The documentation's site in a real browser: axe on every page, light and dark, desk and phone; search by magnifier.

    mkdocs build -d .bench/site
    python tests/benchmarks/docs_site.py .bench/site --shots .bench/shots

Below 960 pixels the theme keeps its search field off the screen until the magnifier in the header is tapped: whoever
types into the field without it waits for what never comes into view.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

WIDTHS = {"desk": 1280, "phone": 390}
WORD = "margin"


class Quiet(SimpleHTTPRequestHandler):
    """Says nothing of what it serves."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The site under an address of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


Found = dict[tuple[str, str], list[str]]
"""Where a rule is broken, by rule and element."""


def looked_at(page: Any, where: str, found: Found) -> None:
    """Adds what axe finds on a page as it stands."""
    for violation in Axe().run(page).response["violations"]:
        found.setdefault((violation["id"], violation["nodes"][0]["html"][:160]), []).append(where)


def searched(context: Any, address: str, where: str, found: Found, shots: Path | None) -> str:
    """Types a word, looks at the results, and follows the first; seconds until results stood there."""
    page = context.new_page()
    page.goto(f"{address}/report/")
    if page.viewport_size["width"] == WIDTHS["phone"]:
        page.locator("header label.md-header__button[for=__search]").click()
    page.locator(".md-search__input").click()
    start = time.perf_counter()
    page.keyboard.type(WORD)
    page.locator(".md-search-result__item").first.wait_for()
    took, said = time.perf_counter() - start, page.locator(".md-search-result__meta").inner_text()
    page.locator(".md-search-result__item").last.scroll_into_view_if_needed()
    looked_at(page, f"search ({where})", found)
    page.locator(".md-search-result__item").first.scroll_into_view_if_needed()
    if shots is not None:
        page.screenshot(path=str(shots / f"search-{where.replace(', ', '-')}.png"))
    page.locator(".md-search-result__link").first.click()
    page.wait_for_url(lambda url: not url.endswith("/report/"))
    page.close()
    return f"search, {where}: {said} in {took:.1f} s, the first one opens"


def main() -> None:
    """Prints what axe found, each once, and what search gave."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("--shots", type=Path)
    arguments = parser.parse_args()
    if arguments.shots is not None:
        arguments.shots.mkdir(parents=True, exist_ok=True)
    pages = sorted(p.relative_to(arguments.site).as_posix() for p in arguments.site.rglob("*.html"))
    found: Found = {}
    looked = 0
    with served(arguments.site) as address, sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            for width, pixels in WIDTHS.items():
                size = {"width": pixels, "height": 844}
                context = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True)
                print(searched(context, address, f"{scheme}, {width}", found, arguments.shots), flush=True)
                looked += 1
                for name in pages:
                    page = context.new_page()
                    page.goto(f"{address}/{name.removesuffix('index.html')}")
                    looked_at(page, f"{name} ({scheme}, {width})", found)
                    looked += 1
                    page.close()
                context.close()
                print(f"axe, {scheme}, {width}: {len(pages)} pages", flush=True)
        browser.close()
    for (rule, node), where in found.items():
        print(f"{rule}: {len(where)} times, first on {where[0]}: {node}")
    print(f"{len(found)} kinds of violations over {looked} views")


if __name__ == "__main__":
    main()
