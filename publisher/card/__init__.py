"""The model card: facts computed from files, then one Markdown text; nothing in it is typed by hand but card.toml."""
