"""Pictures of the page as SVG: from tables to markup, with no script and no font of their own."""
