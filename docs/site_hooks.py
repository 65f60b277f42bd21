"""What the build of the site does beside its plugins: links in notebooks.

A notebook links to pages as files, `../kd.md`, so that the links work where the repository is read. MkDocs translates such
links in Markdown pages, but not in notebooks, which reach it as HTML.
"""

import logging
import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

# A warning of this logger fails a strict build.
logger = logging.getLogger("mkdocs.plugins.notebook_links")
PAGE_LINK = re.compile(r'href="(?!https?:)([^"#]+\.(?:md|ipynb))(#[^"]*)?"')


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Translate a notebook's links to files into links to the pages that are made of them."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    folder = posixpath.dirname(page.file.src_uri)

    def to_page(match: re.Match[str]) -> str:
        target = files.get_file_from_path(posixpath.normpath(posixpath.join(folder, match[1])))
        if target is None:
            logger.warning("The notebook '%s' links to '%s', which is no page.", page.file.src_uri, match[1])
            return match[0]
        return f'href="{target.url_relative_to(page.file)}{match[2] or ""}"'

    return PAGE_LINK.sub(to_page, html)
