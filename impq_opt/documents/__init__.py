"""Numbers, text, TOML and JSON out of files, each told where it is wrong; files written whole or not at all."""
