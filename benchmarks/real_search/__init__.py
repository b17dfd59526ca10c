"""The joint search on real data, and the paper's claims about it, checked at a scale that a CPU can run.

python -m benchmarks.real_search --data FOLDER --run RUN: a few hours on 2 cores; a stopped run is resumed. FOLDER is
Imagenette-128, unpacked (train and val, one folder per class).

    plan.yaml --> plan.py --> run.py: the parts of the run --> RUN --> figures.py --> results/real_search.json
                                  |
                              costs.py: what joint and separate searches cost

    RUN/data            links: train; val, every other image of val, for the search; test, the rest, for judgement
    RUN/hss, uniform    `Run`s that differ in the sampler of the supernet; the search itself uses hss
    RUN/samplers.json   random networks scored in both supernets                                            (b)
    RUN/standalone      networks trained alone; RUN/hss/standalone.json has their results                   (a), (c)
    RUN/costs.json      images and MACs of joint and separate searches                                      (d)
    RUN/latency_run     a second search in the same supernet, with a limit on latency; RUN/latency.json     (e)
"""
