"""The search engine, the methods that it runs, and the report of what they found."""
