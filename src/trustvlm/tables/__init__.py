"""Tables for reports and studies, as Markdown, LaTeX and HTML."""
