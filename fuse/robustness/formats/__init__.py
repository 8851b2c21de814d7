"""The robustness table as text: which columns it has, and what they look like in Markdown and LaTeX."""
