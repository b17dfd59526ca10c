"""The search of topologies on real data, and the paper's claims about it, checked at a scale that a CPU can run.

python -m benchmarks.real_scalenas CONFIG --data FOLDER --run RUN: a few hours on 2 cores; a stopped run is resumed.
CONFIG is camvid or leeds; FOLDER is camvid-11 or lspet-coco, unpacked.

    CONFIG.yaml --> plan.py --> run.py: the parts of the run --> RUN --> figures.py --> results/real_CONFIG.json

    RUN/data                          links: train, val for the search, test for judgement (for pose, halves of val)
    RUN/teacher                       the largest network, trained alone
    RUN/grouped, uniform, sandwich    `Run`s that differ in the sampler; the search itself uses the grouped one
    RUN/samplers.json                 random networks scored in all three supernets                               (b)
    RUN/searches                      more searches, with other seeds                                             (c)
    RUN/standalone                    networks trained alone; RUN/grouped/standalone.json has their results       (a, d)
    RUN/longer, longer.json           some of them trained as long as teacher and supernet together               (a)
    RUN/inherited.json                the same networks with the supernet's weights, judged on the same images    (a)
"""
