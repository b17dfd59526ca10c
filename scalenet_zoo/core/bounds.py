"""How much is read, shown and built before somebody is asked: every resource bound, and what its figure stands on."""

KIB, MIB, GIB = 2**10, 2**20, 2**30

JSON_BYTES = 8 * MIB
"""Of a JSON file of ours: the largest spec that can be built, 64 modules or 1,024 layers, takes under 1 MiB."""

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

LAYERS = 1_024
"""Of an mbconv network: the deepest of the zoo, EfficientNet-B8, has 61; so many take 3 s to check and to build."""

WEIGHTS_HEADER_BYTES = 32 * MIB
"""Of a safetensors file's names and shapes: the network with the most tensors, 45,333, needs 7 MB, and training keeps
two more of each."""

CHECKPOINT_BYTES = 64 * MIB
"""Of a checkpoint's own JSON: it names each tensor of the weights, of their average and of the optimiser; the network
with the most tensors, 45,333, needs 20 MB."""

PROFILE_ITEMS = 1_000
"""Of a latency profile's layers, of its networks and of those held out: so many take hours, and 2 MB of its file."""

CORRECTION_POINTS = 10_000
"""Of a latency model's correction: a profile's networks, and those that a search measures after its rounds."""

THREADS = 1_024
"""CPU threads that a network is run on: no machine that these networks are for has more cores."""

PREDICTED_AT_ONCE = 2**24
"""Distances between networks and a correction's points that are worked out in one go: 128 MiB of them."""

ONNX_BYTES = 2 * GIB
"""Of an ONNX file without its external data: protobuf reads no larger one."""

IR_BYTES = 256 * MIB
"""Of the XML of OpenVINO's IR: 3 KB a layer; the network with the most tensors, 45,333, takes up to 200 MB."""

GZIP_RATIO = 64
"""What a compressed engine may unpack to, as a multiple of itself: TensorRT-RTX's engines shrink to a tenth at most,
bytes that gzip was fed to fill memory to a thousandth."""

ENGINE_BYTES = 64 * GIB
"""Of an engine: a network of 2 GB makes one of some 4 GB, and TensorRT-RTX one a kind of GPU that it is built for."""

TIMINGS_BYTES = GIB
"""Of TensorRT's timings of kernels: those of the whole zoo take some MB."""

OUTLINE_PIXELS = 2_000_000
"""Length of the outline of somebody in a picture: 50 times around one of 10,000 x 10,000; pycocotools takes some 100
bytes a pixel."""

PICTURE_PIXELS = GIB // 6
"""Of a picture that is looked at whole, 179 million: Pillow's own bound against files that unpack to fill memory."""

TILED_PICTURE_PIXELS = 2**30
"""Of a picture that is looked at in tiles: a scan of 32,768 x 32,768; its parts and classes take 16 GiB."""

PIXEL_BYTES = 16
"""Of memory for each pixel of a picture in tiles: 4 in Pillow, 3 as an array, 4 to 9 of its classes or mask."""

MASKS_LOOKED_AT = 200
"""To find a second class in masks before training: large ones take 10 s; the first usually has several."""

STRATEGIES = 10_000
"""Of a scaling stage of a search space: the paper's has 147; limits are worked out for so many at once in 100 MB."""

JOINTS = 1_000
"""Of a person: COCO-WholeBody has 133; each annotation takes room for all of them."""

JSON_VALUES = 200_000
"""Of a spec, a family or a config.json: labels of ImageNet-21k, twice, are 44,000; each may be a complaint of 1 KB."""

LEDGER_BYTES, LEDGER_VALUES = 64 * MIB, 2_000_000
"""Of a search: ScaleNet's with the paper's settings scores 62,000 networks, which take 11 MB and 400,000 values."""
