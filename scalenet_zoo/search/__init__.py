"""The search engine, the methods that it runs, and the report on the networks that they find."""
