"""A screenshot of a page that `explore` wrote, after a click on a network.

python -m tools.explore_picture explore.html docs/explore.png --pick tf_efficientnet_lite0: requires Chromium.
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Open the page, pick a network, and write the screenshot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--pick", help="the name of a network; its first row is picked")
    arguments = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        parser.error(f"found none of {', '.join(BROWSERS)} on the path, expected one")
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        page = window.new_page(viewport={"width": 1200, "height": 1050})
        page.goto(arguments.page.resolve().as_uri())
        if arguments.pick:
            page.get_by_role("button", name=arguments.pick, exact=True).first.click()
            page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(500)
        page.screenshot(path=arguments.picture)
        window.close()


if __name__ == "__main__":
    main()
