"""The evidence for the searches' claims: studies with a protocol (docs/evidence.md), runs, and tables.

plan.yaml --> plan.py      images.py (CIFAR-10 on the device)
                |              |
                +--> alone.py, supernets.py: what one process trains and scores
                          |
                     tasks.py: what a process is told to do
                          |
                     workers.py: many processes on one device --> smoke.py: how fast they are together
                          |
                     run.py: what is missing, in order of worth, until the clock says stop --> tables.py
"""
