"""What the build of the site does beside its plugins.

- A notebook links to pages as files, `../kd.md`, so that the links also work where the repository is read. MkDocs
  translates such links in Markdown pages, but not in notebooks, which reach it as HTML.
- The scripts that nbconvert puts into a notebook's page, for formulas and diagrams, come from another host. The
  notebooks have neither.
- Each Markdown page is also left as the file that it was made of, because `llms.txt` links to those files.
"""

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

# A warning of this logger fails a strict build.
logger = logging.getLogger("mkdocs.plugins.bertkd_hooks")
PAGE_LINK = re.compile(r'href="(?!https?:)([^"#]+\.(?:md|ipynb))(#[^"]*)?"')
SCRIPT = re.compile(r"<script\b[^>]*>.*?</script>", flags=re.DOTALL)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave the page's source beside the page."""
    if page.file.src_uri.endswith(".md"):
        source = Path(config.site_dir, page.file.src_uri)
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(markdown, encoding="utf-8")

    return markdown


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make a notebook's page whole: its links lead to pages, and it loads nothing from another host."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    folder = posixpath.dirname(page.file.src_uri)

    def to_page(link: re.Match[str]) -> str:
        target = files.get_file_from_path(posixpath.normpath(posixpath.join(folder, link[1])))
        if target is None:
            logger.warning("The notebook '%s' links to '%s', which is no page.", page.file.src_uri, link[1])
            return link[0]
        return f'href="{target.url_relative_to(page.file)}{link[2] or ""}"'

    def without_remote(script: re.Match[str]) -> str:
        is_remote = re.search(r"mathjax|mermaid", script[0], flags=re.IGNORECASE) or 'src=""' in script[0]
        return "" if is_remote else script[0]

    return SCRIPT.sub(without_remote, PAGE_LINK.sub(to_page, html))
