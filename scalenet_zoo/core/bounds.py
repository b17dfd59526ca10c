"""Every bound on what is read, shown and built, with the reason for its figure."""

KIB, MIB, GIB = 2**10, 2**20, 2**30

JSON_BYTES = 8 * MIB
"""Size of one of our JSON files: the largest spec that can be built, 64 modules or 1,024 layers, takes under 1 MiB."""

ANNOTATION_BYTES = 2 * GIB
"""Size of annotations and detections: COCO's training annotations take 240 MB, a detector's boxes for them 800 MB."""

YAML_BYTES = MIB
"""Size of a recipe, a search's configuration, a space or a joints file: ours take under 4 KiB."""

YAML_VALUES = 100_000
"""Values in a YAML file, with anchors expanded: a recipe has about 50."""

LINES_BYTES = GIB
"""Size of a text that is read line by line: a list of ImageNet's files takes 50 MB, the scores of 10,000 networks take
3 MB."""

NESTING = 100
"""Levels of nested lists and objects: our deepest format, a family in a search's provenance, has 12."""

INTEGER = 2**64
"""Bound on the absolute value of integers: programs in other languages can read smaller ones, and no count needs
more."""

MESSAGE_CHARACTERS = 1_000
"""Length of an error message: about ten lines of a terminal. A longer message loses its middle."""

QUOTED_CHARACTERS = 120
"""Length of a value that an error quotes: more than a line of a terminal helps nobody."""

LAYERS = 1_024
"""Layers of an mbconv network: the zoo's deepest, EfficientNet-B8, has 61. A network at the bound takes 3 s to check
and build."""

WEIGHTS_HEADER_BYTES = 32 * MIB
"""Size of a safetensors file's header, its names and shapes: the network with the most tensors, 45,333, needs 7 MB, and
training keeps two more copies of each tensor."""

CHECKPOINT_BYTES = 64 * MIB
"""Size of a checkpoint's JSON, which names each tensor of the weights, of their average and of the optimiser: the
network with the most tensors, 45,333, needs 20 MB."""

PROFILE_ITEMS = 1_000
"""Layers, networks and held-out networks in a latency profile, each: this many take hours, and 2 MB of its file."""

CORRECTION_POINTS = 10_000
"""Points of a latency model's correction: the networks of a profile, and those that a search measures after its
rounds."""

THREADS = 1_024
"""CPU threads that a network runs on: no machine that these networks are for has more cores."""

PREDICTED_AT_ONCE = 2**24
"""Distances between networks and a correction's points that are computed at once: they take 128 MiB."""

ONNX_BYTES = 2 * GIB
"""Size of an ONNX file without its external data: protobuf reads no larger file."""

IR_BYTES = 256 * MIB
"""Size of the XML of OpenVINO's IR, 3 KB per layer: the network with the most tensors, 45,333, takes up to 200 MB."""

GZIP_RATIO = 64
"""Ratio of an engine's unpacked to its compressed size: TensorRT-RTX's engines shrink to a tenth at most, while a gzip
bomb shrinks to a thousandth."""

ENGINE_BYTES = 64 * GIB
"""Size of an engine: a network of 2 GB becomes an engine of about 4 GB, and TensorRT-RTX adds one for each kind of GPU
that it builds for."""

TIMINGS_BYTES = GIB
"""Size of TensorRT's file of kernel timings: the timings of the whole zoo take a few MB."""

OUTLINE_PIXELS = 2_000_000
"""Length of a person's outline, in pixels: 50 times around a picture of 10,000 x 10,000. pycocotools takes about 100
bytes per pixel of it."""

PICTURE_PIXELS = GIB // 6
"""Pixels of a picture that a network sees whole, 179 million: Pillow's own bound against decompression bombs."""

TILED_PICTURE_PIXELS = 2**30
"""Pixels of a picture that a network sees in tiles: a scan of 32,768 x 32,768, whose parts and classes take 16 GiB."""

PIXEL_BYTES = 16
"""Bytes of memory for each pixel of a picture in tiles: 4 in Pillow, 3 as an array, 4 to 9 for its classes or mask."""

MASKS_LOOKED_AT = 200
"""Masks that are searched for a second class before training: large ones take 10 s; the first mask usually has several
classes."""

STRATEGIES = 10_000
"""Strategies of one scaling stage in a search space: the paper's has 147. Computing limits for this many at once takes
100 MB."""

JOINTS = 1_000
"""Joints of a person: COCO-WholeBody has 133. Each annotation takes room for all of them."""

JSON_VALUES = 200_000
"""Values in a spec, a family or a config.json: the labels of ImageNet-21k, twice, are 44,000. Each value may cause a
complaint of 1 KB."""

LEDGER_BYTES, LEDGER_VALUES = 64 * MIB, 2_000_000
"""Size and values of a search's ledger: ScaleNet's search with the paper's settings scores 62,000 networks, which take
11 MB and 400,000 values."""
