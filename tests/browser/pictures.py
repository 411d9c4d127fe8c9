"""Pictures of the pages on the way, kept in the folder ``TERAKOYA_SCREENSHOTS`` where one is named."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import Page


def picture(page: Page, name: str) -> None:
    """Check that nothing sticks out of the window, and keep a picture."""
    folder = os.environ.get("TERAKOYA_SCREENSHOTS")
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, f"{name}: the page is {overflow} px wider than its window"
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
