"""Numbers, text, TOML, JSON and tables out of files, each told where it is wrong; files written whole or not at all."""
