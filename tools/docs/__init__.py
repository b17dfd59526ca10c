"""The documentation site: pages generated from the code, and links into the repository (`make docs`)."""
