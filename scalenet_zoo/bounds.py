"""How much is read, shown and built before somebody is asked: every resource bound, and what its figure stands on."""

KIB, MIB, GIB = 2**10, 2**20, 2**30

JSON_BYTES = 8 * MIB
"""Of a JSON file of ours: the largest spec that can be built, 64 modules or 8,192 layers, takes under 1 MiB."""

ANNOTATION_BYTES = 2 * GIB
"""Of annotations and detections: COCO's own for training take 240 MB, a detector's boxes for them 800 MB."""

YAML_BYTES = MIB
"""Of a recipe, a search, a space or a file about joints: ours take under 4 KiB."""

YAML_VALUES = 100_000
"""Of a YAML file's values, those that anchors repeat counted each time: a recipe has some 50."""

LINES_BYTES = GIB
"""Of a text that is read line by line: a list of ImageNet's files takes 50 MB, the scores of 10,000 networks 3 MB."""

NESTING = 100
"""Lists and objects within one another: our deepest format, a family in a search's provenance, has 12."""

INTEGER = 2**64
"""Integers stay below, on either side of zero: programs in other languages can take them, and no count needs more."""

MESSAGE_CHARACTERS = 1_000
"""Of an error: some ten lines of a terminal; the middle of a longer one is left out."""

QUOTED_CHARACTERS = 120
"""Of a value that an error quotes: more than a line of a terminal says nothing more."""
