"""The zoo's architecture specs and families, as JSON files; `scalenet_zoo.zoo.catalog` reads them."""
